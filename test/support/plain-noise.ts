// torch.randn from 16 values on in plain TypeScript: the same generator and the same float32 arithmetic as the WASM.
// The yardstick of the noise bench, and a second opinion on the WASM for sizes no fixture has.
const f = Math.fround;
const TWO_PI = f(2 * Math.PI);

/** `count` values, a multiple of 16, of `torch.randn` on a freshly seeded CPU generator. */
export function plainRandn(seed: number, count: number): Float32Array<ArrayBuffer> {
  const next = mersenneTwister(seed);
  const out = new Float32Array(count);
  for (let block = 0; block < count; block += 16) {
    for (let i = 0; i < 16; i++) out[block + i] = (next() & 0xffffff) / 0x1000000;
    for (let i = block; i < block + 8; i++) {
      const radius = f(Math.sqrt(-2 * log(1 - out[i]!)));
      const { sine, cosine } = sineCosine(f(TWO_PI * out[i + 8]!));
      out[i] = radius * cosine;
      out[i + 8] = radius * sine;
    }
  }
  return out;
}

function mersenneTwister(seed: number): () => number {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    const before = state[i - 1]!;
    state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
  }
  let used = 624;
  return () => {
    if (used === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i]! & 0x80000000) | (state[(i + 1) % 624]! & 0x7fffffff);
        state[i] = state[(i + 397) % 624]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      used = 0;
    }
    let y = state[used++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

const LOG_SERIES = Float32Array.of(
  7.0376836292e-2,
  -1.151461031e-1,
  1.167699874e-1,
  -1.2420140846e-1,
  1.4249322787e-1,
  -1.6668057665e-1,
  2.0000714765e-1,
  -2.4999993993e-1,
  3.3333331174e-1,
);
const LOG_LOW = f(-2.1219444e-4);
const LOG_HIGH = f(0.693359375);
const SQRT_HALF = f(Math.SQRT1_2);
const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** Cephes' logf, fused multiply-adds. */
function log(value: number): number {
  float[0] = value;
  let exponent = (word[0]! >>> 23) - 126;
  word[0] = (word[0]! & 0x7fffff) | 0x3f000000;
  let x = float[0]!;
  if (x < SQRT_HALF) {
    exponent--;
    x += x;
  }
  x -= 1;
  const square = f(x * x);
  let y = LOG_SERIES[0]!;
  for (let i = 1; i < 9; i++) y = f(y * x + LOG_SERIES[i]!);
  y = f(f(y * x) * square + f(exponent * LOG_LOW));
  y = f(y - square * 0.5);
  return f(exponent * LOG_HIGH + f(x + y));
}

const COSINE = Float32Array.of(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2);
const SINE = Float32Array.of(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1);
const QUARTER = Float32Array.of(-0.78515625, -2.4187564849853516e-4, -3.774894977445941e-8);
const FOUR_OVER_PI = f(4 / Math.PI);

/** Cephes' sinf and cosf of an angle in [0, 2π), fused multiply-adds. */
function sineCosine(angle: number): { sine: number; cosine: number } {
  const octant = (Math.trunc(f(angle * FOUR_OVER_PI)) + 1) & ~1;
  let x = angle;
  for (let i = 0; i < 3; i++) x = f(octant * QUARTER[i]! + x);
  const z = f(x * x);
  let even = f(f(COSINE[0]! * z + COSINE[1]!) * z + COSINE[2]!);
  even = f(f(f(even * z) * z - 0.5 * z) + 1);
  let odd = f(f(SINE[0]! * z + SINE[1]!) * z + SINE[2]!);
  odd = f(f(odd * z) * x + x);
  const swap = (octant & 2) !== 0;
  const sine = swap ? even : odd;
  const cosine = swap ? odd : even;
  return { sine: octant & 4 ? -sine : sine, cosine: (octant + 2) & 4 ? -cosine : cosine };
}
