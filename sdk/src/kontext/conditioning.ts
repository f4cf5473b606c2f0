// Sinusoidal embeddings of timestep and guidance, exactly or with the rounding of a bfloat16 pipeline.
// Computed here in float64: arguments reach 30,000 radians, where GPU sines are wrong in the second digit.

/** Values an embedding has: cosines of 128 frequencies, then their sines. */
export const EMBEDDING_WIDTH = 256;

/**
 * Embeds each of `values` (timesteps in [0, 1], or guidance as given) scaled by 1000.
 *
 * `bfloat16` rounds the value, its product with 1000 and the sinusoids as the published pipelines do when they run in that
 * type: a guidance of 2.5 becomes 2496 instead of 2500, which moves every phase. Frequencies are 10000^(−i/128).
 *
 * @returns f32 `[values.length, 256]`
 */
export function sinusoids(values: ArrayLike<number>, conditioning: 'exact' | 'bfloat16'): Float32Array<ArrayBuffer> {
  const half = EMBEDDING_WIDTH / 2;
  const rounded = conditioning === 'bfloat16' ? toBfloat16 : Number;
  const out = new Float32Array(values.length * EMBEDDING_WIDTH);
  for (let row = 0; row < values.length; row++) {
    const argument = rounded(1000 * rounded(values[row]!));
    for (let i = 0; i < half; i++) {
      const angle = argument * Math.exp((-Math.log(10000) * i) / half);
      out[row * EMBEDDING_WIDTH + i] = rounded(Math.cos(angle));
      out[row * EMBEDDING_WIDTH + half + i] = rounded(Math.sin(angle));
    }
  }
  return out;
}

/** The bfloat16 nearest to `value`, ties to even, as a number. */
export function toBfloat16(value: number): number {
  float[0] = value;
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  return float[0];
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
