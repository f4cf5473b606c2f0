// e^x as PyTorch's CPU kernels compute it, to the bit. The frequencies of the timestep embedding are made with it, and an
// angle of 30,000 radians shows the last bit of its frequency.

/** ln 2 in two parts, so that q · HIGH is exact for the q of float32. */
const LN2_HIGH = 0.693145751953125;
const LN2_LOW = Math.fround(1.428606765330187e-6);
/** Of the polynomial in s, from s⁵ down to s⁰; nearly 1/7!, 1/6!, … 1/2!. */
const COEFFICIENTS = [0.00019852762, 0.001393043552525, 0.00833336077631, 0.04166648536921, 0.16666667163372, 0.5].map(
  Math.fround,
);

/**
 * The float32 exponential of SLEEF, which is within one unit in the last place and not always the nearest: x = q·ln 2 + s,
 * e^x = 2^q · (1 + s + s²·p(s)), each step rounded to float32, products and sums fused.
 *
 * @param x a float32; −87 … 88, where nothing overflows
 * @see Shibata and Petrogalli 2020, "SLEEF: A Portable Vectorized Library of C Standard Mathematical Functions"
 */
export function float32Exp(x: number): number {
  const q = Math.round(Math.fround(x * Math.fround(Math.LOG2E)));
  const s = fused(q, -LN2_LOW, fused(q, -LN2_HIGH, x));
  const p = COEFFICIENTS.reduce((sum, coefficient) => fused(sum, s, coefficient));
  return Math.fround(1 + fused(Math.fround(s * s), p, s)) * 2 ** q;
}

/** a · b + c, rounded once: the product of two float32 is exact in float64. */
function fused(a: number, b: number, c: number): number {
  return Math.fround(a * b + c);
}
