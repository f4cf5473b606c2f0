// f16 values read as 32-bit words, for adapters that run on the CPU.
// Their drivers gather 16-bit values one at a time; two in a word cost half as much, and unpacking is arithmetic.

/** `vec4<f32>` of the four f16 values in a `vec2<u32>`, whose expression is written twice. */
export const unpackHalves = (words: string): string =>
  `vec4<f32>(unpack2x16float(${words}.x), unpack2x16float(${words}.y))`;
