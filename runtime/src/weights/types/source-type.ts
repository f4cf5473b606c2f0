// What an element type of checkpoint files is: how long a block is, how CPU and GPU read it, what stores it without loss.
// Everything that reads weights goes through this: transcoding, embeddings, adapters, packing.

import type { WeightFormat } from '../../program/formats.ts';

/** An element type of a file: a plain one (a block of one element) or a quantised one. */
export interface SourceType {
  /** As the file's format spells it: `BF16`, `F8_E4M3`, `Q4_K`. */
  name: string;
  /** Elements of a block; a multiple of 32 unless 1. */
  elements: number;
  /** Bytes of a block. */
  bytes: number;
  /** The stored format that holds exactly these codes and scales; absent for floats, which take the precision of the arithmetic. */
  stored?: WeightFormat;
  reader: ElementReader | BlockReader;
}

/** Whether codes and scales go over as they are, without a value in between. */
export const isLossless = ({ type, format }: { type: SourceType; format: WeightFormat }): boolean =>
  type.stored === format;

/** Formats that any type can be turned into; all others hold only the types they are made for. */
export const COMMON_FORMATS: readonly WeightFormat[] = ['f32', 'f16', 'q8', 'q4'];

/** True when there is a transcode from the type to the format. */
export const canTranscode = (type: SourceType, format: WeightFormat): boolean =>
  isLossless({ type, format }) || COMMON_FORMATS.includes(format);

/** Reading one element at a time. */
export interface ElementReader {
  kind: 'element';
  /** WGSL: an expression for element `i` as f32, reading `src: array<u32>`. */
  wgsl: string;
  /** Functions that the expression calls. */
  declarations?: string;
  /**
   * Of a word of elements `w`: when `(w & magnitude) + toInfinity` sets a sign bit, one of them is NaN or infinite. The magnitude is
   * all bits but the signs.
   */
  bits: { magnitude: number; toInfinity: number };
  /** WGSL: two elements, in order, as `vec2<f32>` of word `w`; only of 16-bit types. */
  pair?: string;
  /** Values of whole elements. */
  decode(bytes: Uint8Array): Float32Array<ArrayBuffer>;
}

/**
 * Reading 32 consecutive elements of a block: 32 codes and, for each half of 16, scale and minimum.
 * value = (d · scale) · code − dMin · minimum, in this order and in f32, as ggml computes it.
 */
export interface BlockReader {
  kind: 'block';
  /** The code is an index into `NIBBLE_LEVELS`. */
  levels?: true;
  /**
   * WGSL: body of `fn block(at: u32, part: u32)`, `at` the byte where the block starts, `part` which 32 elements of it.
   * Sets `codes: array<i32, 32>`, `d`, `dMin: f32`, `scales`, `minimums: vec2<i32>`, and may call {@link BYTE_READERS}.
   */
  wgsl: string;
  /**
   * WGSL: body of `fn words(at: u32, part: u32)`, which sets the private `word: array<u32, 8>` (four are used of 4-bit codes) to what
   * the stored format's codes are, and all that {@link wgsl} sets but `codes`. Absent where codes are put together one by one.
   */
  words?: string;
  read(bytes: DataView, at: number, part: number, out: QuantBlock): void;
}

/** 32 elements as {@link BlockReader} describes them. */
export interface QuantBlock {
  codes: Int32Array;
  d: number;
  dMin: number;
  scales: [number, number];
  minimums: [number, number];
}

export const emptyBlock = (): QuantBlock => ({
  codes: new Int32Array(32),
  d: 0,
  dMin: 0,
  scales: [1, 1],
  minimums: [0, 0],
});

/** WGSL that reads little-endian values of `src: array<u32>` at byte offsets; blocks start at even bytes. `nibbles`: the low ones of four bytes, in order. */
export const BYTE_READERS = `
fn byteAt(o: u32) -> u32 { return (src[o / 4u] >> ((o % 4u) * 8u)) & 0xffu; }
fn shortAt(o: u32) -> u32 { return (src[o / 4u] >> ((o % 4u) * 8u)) & 0xffffu; }
fn halfAt(o: u32) -> f32 { return unpack2x16float(shortAt(o)).x; }
fn wordAt(o: u32) -> u32 {
  let shift = (o % 4u) * 8u;
  return select((src[o / 4u] >> shift) | (src[o / 4u + 1u] << (32u - shift)), src[o / 4u], shift == 0u);
}
fn nibbles(w: u32) -> u32 {
  let low = w & 0x0f0f0f0fu;
  let pairs = (low | (low >> 4u)) & 0x00ff00ffu;
  return (pairs | (pairs >> 8u)) & 0xffffu;
}`;
