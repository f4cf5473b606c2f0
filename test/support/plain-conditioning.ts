// What the transformer's programs are given besides latents and text, computed plainly in float64 from a reference's inputs.

/** Sinusoidal embedding of `1000 · value`, cosines first, 256 wide. */
export function embedded(value: number): Float32Array {
  return Float32Array.from({ length: 256 }, (_, i) => {
    const angle = 1000 * value * 10000 ** (-(i % 128) / 128);
    return i < 128 ? Math.cos(angle) : Math.sin(angle);
  });
}

/** Nearest number of 8 significant bits, ties to even: bfloat16 within its range of exponents. */
export function eightBits(value: number): number {
  if (value === 0) return 0;
  const unit = 2 ** (Math.floor(Math.log2(Math.abs(value))) - 7);
  const [below, rest] = [Math.floor(value / unit), value / unit - Math.floor(value / unit)];
  return unit * (rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below);
}

/** What the transformer of a bfloat16 pipeline takes the sines of: 1000 · σ, after every rounding on the way there. */
export const roundedTimestep = {
  diffusers: (sigma: number) => eightBits(1000 * eightBits(eightBits(Math.fround(1000 * sigma)) / 1000)),
  bfl: (sigma: number) => eightBits(1000 * eightBits(sigma)),
};

/** Rotary table `[tokens, size]` of (cos, sin) pairs for position ids `[tokens, axes]`. */
export function rotary(ids: ArrayLike<number>, axes: readonly number[], theta = 10000): Float32Array {
  const size = axes.reduce((a, b) => a + b);
  const tokens = ids.length / axes.length;
  const table = new Float32Array(tokens * size);
  for (let t = 0; t < tokens; t++) {
    let at = t * size;
    axes.forEach((width, axis) => {
      for (let i = 0; i < width; i += 2, at += 2) {
        const angle = ids[t * axes.length + axis]! * theta ** (-i / width);
        table[at] = Math.cos(angle);
        table[at + 1] = Math.sin(angle);
      }
    });
  }
  return table;
}
