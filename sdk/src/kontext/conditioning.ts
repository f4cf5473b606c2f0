// Sinusoidal embeddings of timestep and guidance, exactly or with the rounding of a published bfloat16 pipeline.
// Computed here and not on the GPU: arguments reach 30,000 radians, where GPU sines are wrong in the second digit.
import { float32Exp } from './float32-exp.ts';

/** Values an embedding has: cosines of 128 frequencies, then their sines. */
export const EMBEDDING_WIDTH = 256;
const HALF = EMBEDDING_WIDTH / 2;

const EXACT_FREQUENCIES = Float64Array.from({ length: HALF }, (_, i) => Math.exp((-Math.log(10000) * i) / HALF));
/** As the pipelines have them; with the nearest float32 instead, one bfloat16 in a thousand tips over. */
const FLOAT32_FREQUENCIES = Float32Array.from({ length: HALF }, (_, i) =>
  float32Exp(Math.fround(Math.fround(-Math.log(10000)) * i) / HALF),
);

/** How numbers were rounded on their way into the transformer; `auto` has been decided. */
export type Rounding = 'exact' | 'diffusers' | 'bfl';

/** 1000 · value as each pipeline arrives at it. */
const SCALED = {
  exact: { timesteps: (value) => 1000 * value, guidance: (value) => 1000 * value },
  bfl: { timesteps: thousandfold, guidance: thousandfold },
  // The scheduler's timesteps are float32 in 0 … 1000; the pipeline rounds, divides, and its transformer multiplies again.
  diffusers: {
    timesteps: (value) => thousandfold(toBfloat16(Math.fround(1000 * value)) / 1000),
    guidance: thousandfold,
  },
} as const satisfies Record<Rounding, Record<'timesteps' | 'guidance', (value: number) => number>>;

/**
 * Embeds each of `values` (timesteps in [0, 1], or guidance as given) scaled by 1000.
 *
 * `bfl` and `diffusers` are the two published pipelines when they run in bfloat16. Both round the value, its product with 1000
 * and the sinusoids, so that a guidance of 2.5 becomes 2496 instead of 2500, and both take sines of float32 angles. They differ in
 * timesteps: diffusers rounds 1000·σ, divides by 1000 and multiplies again, rounding each time.
 *
 * Frequencies are 10000^(−i/128).
 *
 * @returns f32 `[values.length, 256]`
 */
export function sinusoids(
  what: 'timesteps' | 'guidance',
  values: ArrayLike<number>,
  rounding: Rounding,
): Float32Array<ArrayBuffer> {
  const scaled: (value: number) => number = SCALED[rounding][what];
  const frequencies = rounding === 'exact' ? EXACT_FREQUENCIES : FLOAT32_FREQUENCIES;
  const [angleOf, stored] = rounding === 'exact' ? [Number, Number] : [Math.fround, toBfloat16];
  const out = new Float32Array(values.length * EMBEDDING_WIDTH);
  for (let row = 0; row < values.length; row++) {
    const argument = scaled(values[row]!);
    for (let i = 0; i < HALF; i++) {
      const angle = angleOf(argument * frequencies[i]!);
      out[row * EMBEDDING_WIDTH + i] = stored(Math.cos(angle));
      out[row * EMBEDDING_WIDTH + HALF + i] = stored(Math.sin(angle));
    }
  }
  return out;
}

function thousandfold(value: number): number {
  return toBfloat16(1000 * toBfloat16(value));
}

/** The bfloat16 nearest to `value`, ties to even, as a number. */
export function toBfloat16(value: number): number {
  float[0] = value;
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
  return float[0];
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
