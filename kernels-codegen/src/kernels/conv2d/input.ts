// Module-scope WGSL that reads a convolution's input: four channels of one pixel, zero outside the image.
// Padding, upsampling and the fused normalisation end here; the variants see a matrix of taps.

import { acc, emit, silu } from '../../expr/expr.ts';
import { LITERALS, type Sizes } from '../../wgsl/sizes.ts';
import { viewLength } from '../kernel.ts';
import { unpackHalves } from '../words.ts';
import type { Conv2dSpec } from './spec.ts';

export interface Conv2dInput {
  declarations: string;
  /** Statements defining `y<name>` and `x<name>` (i32): the window's first tap for output pixel `row` (u32). */
  window(name: string, row: string): string;
  /** `vec4<element>`: channels `c … c + 3` of pixel (y, x), i32 in upsampled coordinates; may lie outside. */
  load(y: string, x: string, c: string): string;
}

/**
 * @param prologueBinding binding number of the scale and shift; the input itself is binding 0
 * @param sizes how the text gets what differs between shapes
 * @param words read f16 as 32-bit words and unpack them: a CPU's driver gathers 16-bit values one at a time
 */
export function emitConv2dInput(
  spec: Conv2dSpec,
  element: 'f32' | 'f16',
  prologueBinding: number,
  words = false,
  sizes: Sizes = LITERALS,
): Conv2dInput {
  const { x, prologue, upsample, stride } = spec;
  const type = `vec4<${element}>`;
  const packed = words && x.type === 'f16';
  const stored = packed ? 'vec2<u32>' : `vec4<${x.type}>`;
  const text = [`@group(0) @binding(0) var<storage, read> image: array<${stored}${sizes.length(viewLength(x) / 4)}>;`];
  const pixel = packed ? unpackHalves('image[at]') : 'image[at]';
  let value = pixel;
  let normalise = '';
  if (prologue) {
    const { view } = prologue;
    const row = (r: number): string =>
      `affine[${sizes.of(`affine_row${r}`, (view.offset + r * view.rowStride) / 4)} + c / 4u]`;
    text.push(
      `@group(0) @binding(${prologueBinding}) var<storage, read> affine: array<vec4<f32>${sizes.length(viewLength(view) / 4)}>;`,
    );
    normalise = `let v = vec4<f32>(${pixel}) * ${row(0)} + ${row(1)};\n  `;
    value = emit(silu(acc), 4, 'v', () => '');
  }
  const [height, width] = [spec.inHeight * upsample, spec.inWidth * upsample];
  const guard = padded(spec)
    ? `if (u32(y) >= ${sizes.of('in_height', height)} || u32(x) >= ${sizes.of('in_width', width)}) { return ${type}(); }\n  `
    : '';
  const scaled = (v: string): string => (upsample === 2 ? `u32(${v}) / 2u` : `u32(${v})`);
  text.push(`fn image_load(y: i32, x: i32, c: u32) -> ${type} {
  ${guard}let at = ${sizes.of('image_offset', x.offset / 4)} + (${scaled('y')} * ${sizes.of('image_width', spec.inWidth)} + ${scaled('x')}) * ${sizes.of('image_stride', x.rowStride / 4)} + c / 4u;
  ${normalise}return ${type}(${value});
}`);
  return {
    declarations: text.join('\n'),
    window: (
      name,
      row,
    ) => `let y${name} = i32((${row}) / ${sizes.of('out_width', spec.outWidth)}) * ${sizes.signed('step', stride)} - ${sizes.signed('pad_top', spec.padTop)};
let x${name} = i32((${row}) % ${sizes.of('out_width', spec.outWidth)}) * ${sizes.signed('step', stride)} - ${sizes.signed('pad_left', spec.padLeft)};`,
    load: (y, x, c) => `image_load(${y}, ${x}, ${c})`,
  };
}

/** True when some tap of some output pixel lies outside the input. */
function padded(spec: Conv2dSpec): boolean {
  const reach = (out: number, pad: number): number => (out - 1) * spec.stride + spec.kernel - pad;
  return (
    spec.padTop > 0 ||
    spec.padLeft > 0 ||
    reach(spec.outHeight, spec.padTop) > spec.inHeight * spec.upsample ||
    reach(spec.outWidth, spec.padLeft) > spec.inWidth * spec.upsample
  );
}
