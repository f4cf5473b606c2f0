// torch.Generator('cpu'): Mersenne Twister and the two ways PyTorch turns its words into normal numbers.
// A picture can only be compared with the reference implementation's when it starts from the very same noise.

/** Words of state and the lag of the recurrence (MT19937: Matsumoto & Nishimura, ACM TOMACS 8(1), 1998). */
const N: i32 = 624;
const M: i32 = 397;

/** A generator in memory: what torch's CPUGeneratorImpl carries from one call to the next. */
@unmanaged
class Generator {
  /** Words already taken from the state; N means that it must be advanced first. */
  used: i32;
  /** 1 when `cached` is the next small value. */
  hasCached: i32;
  /** The sine half of the last Box-Muller pair that a small draw did not need. */
  cached: f64;
  // The N words follow.
}

/** Bytes that a generator needs; `allocate` them, then call `generatorSeed`. */
export function generatorBytes(): u32 {
  return offsetof<Generator>() + 4 * N;
}

/**
 * `torch.Generator('cpu').manual_seed(seed)`.
 *
 * @param generator address of `generatorBytes()` bytes
 * @param seed the low 32 bits of the seed: torch seeds its 64-bit API's engine with no more than these
 */
export function generatorSeed(generator: usize, seed: u32): void {
  const state = changetype<Generator>(generator);
  const words = generator + offsetof<Generator>();
  state.used = N;
  state.hasCached = 0;
  store<u32>(words, seed);
  for (let i: u32 = 1; i < <u32>N; i++) {
    seed = 1812433253 * (seed ^ (seed >> 30)) + i;
    store<u32>(words + (i << 2), seed);
  }
}

/**
 * `torch.normal(mean, std, (count,), generator=generator)`; `torch.randn` with mean 0 and std 1.
 *
 * Below 16 values it is Box-Muller in float64, one value at a time, the unused half of a pair kept for the next small
 * draw. From 16 values on it is Box-Muller in float32 on blocks of 16, the arithmetic of torch's AVX2 kernel (see
 * `normalBlock`). When 16 does not divide `count` the last block is drawn anew and overlaps the one before it; in
 * float32 torch has drawn, and wastes, uniforms for the ragged end, in bfloat16 it has not.
 *
 * @param out address of `count` float32 values, 16-byte aligned
 * @param bfloat16 1 to round every value to bfloat16 (ties to even), as torch does for dtype=torch.bfloat16
 */
export function generatorNormal(
  generator: usize,
  out: usize,
  count: u32,
  mean: f64,
  std: f64,
  bfloat16: i32,
): void {
  if (count < 16) {
    for (let i: u32 = 0; i < count; i++) store<f32>(out + (i << 2), <f32>(smallNormal(generator) * std + mean));
  } else {
    const ragged = count & 15;
    const mean32 = f64x2.splat(<f64>(<f32>mean));
    const std32 = f64x2.splat(<f64>(<f32>std));
    for (let i: u32 = 0; i + 16 <= count; i += 16) normalBlock(generator, out + (i << 2), mean32, std32);
    if (ragged) {
      if (!bfloat16) for (let i: u32 = 0; i < ragged; i++) next(generator);
      normalBlock(generator, out + ((count - 16) << 2), mean32, std32);
    }
  }
  if (bfloat16) for (let i: u32 = 0; i < count; i++) roundToBfloat16(out + (i << 2));
}

/** One draw of the double path: torch's normal_distribution<double>, cosine half first. */
function smallNormal(generator: usize): f64 {
  const state = changetype<Generator>(generator);
  if (state.hasCached) {
    state.hasCached = 0;
    return state.cached;
  }
  const u1 = uniform53(generator);
  const u2 = uniform53(generator);
  const radius = Math.sqrt(-2 * Math.log1p(-u2));
  const theta = 2 * Math.PI * u1;
  state.cached = radius * Math.sin(theta);
  state.hasCached = 1;
  return radius * Math.cos(theta);
}

/**
 * Draws 16 uniforms and turns them into 16 normal values: elements i and i + 8 are a pair, the first under the
 * logarithm, the second the angle (Box & Muller, Ann. Math. Stat. 29, 1958).
 *
 * Two pairs at a time in float64 lanes whose values are always float32 numbers: `round` after every operation gives
 * float32 arithmetic, and `fma` gives the fused multiply-add of the reference's compiled code (the product of two
 * float32 is exact in float64). The one difference is a sum that float64 rounds onto the midpoint of two float32,
 * about one operation in 2^30, and it moves the result by at most one unit in the last place.
 */
function normalBlock(generator: usize, block: usize, mean: v128, std: v128): void {
  for (let i: usize = 0; i < 16; i++) store<f32>(block + (i << 2), <f32>(next(generator) & 0xffffff) * (1.0 / 16777216.0));
  for (let i: usize = 0; i < 32; i += 8) {
    const u1 = f64x2.promote_low_f32x4(v128.load64_zero(block + i));
    const u2 = f64x2.promote_low_f32x4(v128.load64_zero(block + i + 32));
    const logarithm = log(f64x2.sub(f64x2.splat(1), u1));
    const radius = round(f64x2.sqrt(f64x2.mul(f64x2.splat(-2), logarithm)));
    const theta = round(f64x2.mul(u2, f64x2.splat(<f64>(<f32>(2 * Math.PI)))));

    // Octant: torch's float32 sine and cosine are Cephes' sinf and cosf (S. Moshier) with shared range reduction.
    const octant = f64x2.mul(theta, f64x2.splat(<f64>(<f32>1.27323954473516)));
    const j = v128.and(i32x4.add(i32x4.trunc_sat_f64x2_u_zero(round(octant)), i32x4.splat(1)), i32x4.splat(~1));
    const y = f64x2.convert_low_i32x4_u(j);
    let x = fma(y, constant(-0.78515625), theta);
    x = fma(y, constant(-2.4187564849853515625e-4), x);
    x = fma(y, constant(-3.77489497744594108e-8), x);
    const z = round(f64x2.mul(x, x));
    let even = fma(constant(2.443315711809948e-5), z, constant(-1.388731625493765e-3));
    even = fma(even, z, constant(4.166664568298827e-2));
    even = fma(round(f64x2.mul(even, z)), z, f64x2.mul(z, f64x2.splat(-0.5)));
    even = round(f64x2.add(even, f64x2.splat(1)));
    let odd = fma(constant(-1.9515295891e-4), z, constant(8.3321608736e-3));
    odd = fma(odd, z, constant(-1.6666654611e-1));
    odd = fma(round(f64x2.mul(odd, z)), x, x);

    // Octants 2, 3, 6 and 7 swap the two series; bit 2 of j, or of j + 2 for the cosine, is the sign.
    const wide = i64x2.extend_low_i32x4_u(j);
    const swap = i64x2.ne(v128.and(wide, i64x2.splat(2)), i64x2.splat(0));
    const sineSign = i64x2.shl(v128.and(wide, i64x2.splat(4)), 61);
    const cosineSign = i64x2.shl(v128.and(i64x2.add(wide, i64x2.splat(2)), i64x2.splat(4)), 61);
    const sine = v128.xor(v128.bitselect(even, odd, swap), sineSign);
    const cosine = v128.xor(v128.bitselect(odd, even, swap), cosineSign);

    storeFloats(block + i, fma(round(f64x2.mul(radius, cosine)), std, mean));
    storeFloats(block + i + 32, fma(round(f64x2.mul(radius, sine)), std, mean));
  }
}

/** Natural logarithm of float32 values in (0, 1] as torch's AVX2 code computes it: Cephes' logf (S. Moshier). */
// @ts-ignore: decorator
@inline
function log(value: v128): v128 {
  const exponentBits = i32x4.shr_u(i32x4.shuffle(value, value, 1, 3, 1, 3), 20);
  let e = f64x2.convert_low_i32x4_s(i32x4.sub(exponentBits, i32x4.splat(1022)));
  const mantissa = v128.or(v128.and(value, i64x2.splat(0x000fffffffffffff)), f64x2.splat(0.5));
  const small = f64x2.lt(mantissa, constant(0.707106781186547524));
  e = f64x2.sub(e, v128.and(small, f64x2.splat(1)));
  const x = f64x2.add(f64x2.sub(mantissa, f64x2.splat(1)), v128.and(small, mantissa));
  const z = round(f64x2.mul(x, x));
  let y = fma(constant(7.0376836292e-2), x, constant(-1.1514610310e-1));
  y = fma(y, x, constant(1.1676998740e-1));
  y = fma(y, x, constant(-1.2420140846e-1));
  y = fma(y, x, constant(1.4249322787e-1));
  y = fma(y, x, constant(-1.6668057665e-1));
  y = fma(y, x, constant(2.0000714765e-1));
  y = fma(y, x, constant(-2.4999993993e-1));
  y = fma(y, x, constant(3.3333331174e-1));
  y = fma(round(f64x2.mul(y, x)), z, round(f64x2.mul(e, constant(-2.12194440e-4))));
  y = fma(z, f64x2.splat(-0.5), y);
  return fma(e, constant(0.693359375), round(f64x2.add(x, y)));
}

/** A float32 constant in both float64 lanes. */
// @ts-ignore: decorator
@inline
function constant(value: f64): v128 {
  return f64x2.splat(<f64>(<f32>value));
}

/** Rounds both lanes to float32. */
// @ts-ignore: decorator
@inline
function round(value: v128): v128 {
  return f64x2.promote_low_f32x4(f32x4.demote_f64x2_zero(value));
}

// @ts-ignore: decorator
@inline
function fma(a: v128, b: v128, c: v128): v128 {
  return round(f64x2.add(f64x2.mul(a, b), c));
}

// @ts-ignore: decorator
@inline
function storeFloats(address: usize, value: v128): void {
  v128.store64_lane(address, f32x4.demote_f64x2_zero(value), 0);
}

function roundToBfloat16(address: usize): void {
  const bits = load<u32>(address);
  store<u32>(address, (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000);
}

/** The low 53 bits of two words, the first word on top, as a fraction. */
function uniform53(generator: usize): f64 {
  const high = <u64>next(generator);
  return <f64>(((high << 32) | <u64>next(generator)) & 0x1fffffffffffff) * (1.0 / 9007199254740992.0);
}

/** The next tempered 32-bit word. */
// @ts-ignore: decorator
@inline
function next(generator: usize): u32 {
  const state = changetype<Generator>(generator);
  if (state.used == N) advance(generator);
  let y = load<u32>(generator + offsetof<Generator>() + (<usize>state.used << 2));
  state.used += 1;
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680;
  y ^= (y << 15) & 0xefc60000;
  return y ^ (y >> 18);
}

/** Replaces all N words by the next N of the recurrence. */
function advance(generator: usize): void {
  const words = generator + offsetof<Generator>();
  for (let i: i32 = 0; i < N; i++) {
    const following = i + 1 < N ? i + 1 : 0;
    const far = i + M < N ? i + M : i + M - N;
    const y = (load<u32>(words + (<usize>i << 2)) & 0x80000000) | (load<u32>(words + (<usize>following << 2)) & 0x7fffffff);
    const twist = (y >> 1) ^ (y & 1 ? 0x9908b0df : 0);
    store<u32>(words + (<usize>i << 2), load<u32>(words + (<usize>far << 2)) ^ twist);
  }
  changetype<Generator>(generator).used = 0;
}
