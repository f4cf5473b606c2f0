// The oracle of stored weight formats: what the bytes of a matrix stand for, and random bytes of every format.
// Written from the table's descriptions alone, an element at a time, in float64.

import { floatToHalf, halfToFloat } from '../../runtime/src/half.ts';
import { NIBBLE_LEVELS, STORED_FORMATS, storedLayout, type WeightFormat } from '../../runtime/src/program/formats.ts';

/** Values `[rows, cols]` of a stored matrix. */
export function storedValues(format: WeightFormat, rows: number, cols: number, bytes: Uint8Array): Float64Array {
  const { codes, scales, zero } = STORED_FORMATS[format];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { sections } = storedLayout(format, rows, cols);
  const scaleAt = sections.slice(codes === 'six' ? 2 : 1);
  const half = (at: number) => halfToFloat(view.getUint16(at, true));
  const nibble = (i: number) => (view.getUint8(i >> 1) >> (4 * (i & 1))) & 15;
  const code = (i: number): number => {
    switch (codes) {
      case 'f32':
        return view.getFloat32(4 * i, true);
      case 'f16':
        return half(2 * i);
      case 'byte':
        return view.getInt8(i);
      case 'nibble':
        return nibble(i) - zero;
      case 'level':
        return NIBBLE_LEVELS[nibble(i)]!;
      case 'six':
        return (nibble(i) | (((view.getUint8(sections[1]! + (i >> 2)) >> (2 * (i & 3))) & 3) << 4)) - zero;
      case 'e4m3':
        return smallFloat(view.getUint8(i), 3, 7);
      case 'e5m2':
        return smallFloat(view.getUint8(i), 2, 15);
      default:
        return codes satisfies never;
    }
  };
  return Float64Array.from({ length: rows * cols }, (_, i) => {
    switch (scales) {
      case 'none':
        return code(i);
      case 'half':
        return code(i) * half(scaleAt[0]! + 2 * (i >> 5));
      case 'pair':
        return code(i) * half(scaleAt[0]! + 4 * (i >> 5)) + half(scaleAt[0]! + 4 * (i >> 5) + 2);
      case 'group32':
      case 'group16': {
        const group = scaleAt[0]! + 2 * (i >> (scales === 'group32' ? 5 : 4));
        const block = scaleAt[1]! + 4 * (i >> 8);
        return code(i) * view.getInt8(group) * half(block) - view.getInt8(group + 1) * half(block + 2);
      }
      case 'row':
        return code(i) * view.getFloat32(scaleAt[0]! + 4 * Math.floor(i / cols), true);
      default:
        return scales satisfies never;
    }
  });
}

/** Random codes and scales of about a weight's size, as the format lays them out; every code occurs. */
export function randomStored(
  format: WeightFormat,
  rows: number,
  cols: number,
  next: () => number,
): { bytes: Uint8Array<ArrayBuffer>; values: Float64Array } {
  const { codes, scales } = STORED_FORMATS[format];
  const { sections, bytes: size } = storedLayout(format, rows, cols);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  const random = () => Math.floor(Math.abs(next()) * 1e6);
  const half = (at: number, value: number) => view.setUint16(at, floatToHalf(value), true);
  const codeBytes = sections[codes === 'six' ? 2 : 1] ?? size;
  for (let i = 0; i < codeBytes; i++) {
    // 8-bit floats: no NaN, no infinity, magnitudes up to 2.
    bytes[i] =
      codes === 'e4m3'
        ? (random() % 65) | ((random() % 2) << 7)
        : codes === 'e5m2'
          ? (random() % 65) | ((random() % 2) << 7)
          : random();
  }
  if (codes === 'f32') for (let i = 0; i < rows * cols; i++) view.setFloat32(4 * i, next(), true);
  if (codes === 'f16') for (let i = 0; i < rows * cols; i++) half(2 * i, next());
  const [a, b] = sections.slice(codes === 'six' ? 2 : 1);
  const unit =
    (Math.abs(next()) + 0.5) /
    Math.sqrt(cols) /
    (codes === 'byte' || codes === 'level' ? 60 : codes === 'six' ? 16 : 5);
  const blocks = (elements: number) => Array.from({ length: (rows * cols) / elements }, (_, i) => i);
  if (scales === 'half') for (const i of blocks(32)) half(a! + 2 * i, unit * (0.5 + Math.abs(next())));
  if (scales === 'pair') {
    for (const i of blocks(32)) {
      half(a! + 4 * i, unit * (0.5 + Math.abs(next())));
      half(a! + 4 * i + 2, -8 * unit * Math.abs(next()));
    }
  }
  if (scales === 'group32' || scales === 'group16') {
    for (const i of blocks(scales === 'group32' ? 32 : 16)) {
      view.setInt8(a! + 2 * i, (random() % 127) - 63);
      view.setInt8(a! + 2 * i + 1, (random() % 127) - 63);
    }
    for (const i of blocks(256)) {
      half(b! + 4 * i, (unit / 40) * (0.5 + Math.abs(next())));
      half(b! + 4 * i + 2, (unit / 20) * Math.abs(next()));
    }
  }
  if (scales === 'row')
    for (let row = 0; row < rows; row++) view.setFloat32(a! + 4 * row, next() / Math.sqrt(cols), true);
  return { bytes, values: storedValues(format, rows, cols, bytes) };
}

function smallFloat(code: number, mantissa: number, bias: number): number {
  const exponent = (code & 127) >> mantissa;
  const fraction = (code & ((1 << mantissa) - 1)) / (1 << mantissa);
  const size = exponent ? (1 + fraction) * 2 ** (exponent - bias) : fraction * 2 ** (1 - bias);
  return code & 128 ? -size : size;
}
