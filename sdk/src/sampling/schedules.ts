// Named schedules: at which shares of noise (sigmas) a model is evaluated, by the names under which people know them.
// Pure functions of the model's own shift; the shifted uniform one that models are published with is in `host/schedule.ts`.

/** σ = shift(t), rising from shift(0) = 0 to shift(1) = 1: how a model moves uniform timesteps towards noise. */
export type ShiftOf = (t: number) => number;

/**
 * σ = e^μ / (e^μ + 1/t − 1); μ = 0 shifts nothing.
 *
 * @see Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 5.3.2
 */
export function exponentialShift(mu: number): ShiftOf {
  const factor = Math.exp(mu);
  return (t) => (t <= 0 ? 0 : factor / (factor + 1 / t - 1));
}

/** Timesteps of the table that the named schedules index, as ComfyUI has for FLUX. */
const TABLE = 10_000;
/** Where `linear_quadratic` turns from small even steps to growing ones. */
const LINEAR_NOISE = 0.025;
/** Both parameters of the Beta distribution of `beta`. */
const BETA = 0.6;
/** Γ(0.6)² / Γ(1.2), the Beta function at {@link BETA} twice. */
const BETA_FUNCTION = 2.4153442080024714;

type Schedule = (steps: number, shift: ShiftOf) => number[];

/** With n steps, the table s_k = shift(k / 10000), and each value used once, as ComfyUI's scheduler of that name. */
const SCHEDULES = {
  /** s at index N − ⌊i·N/n⌋. */
  simple: (steps, shift) => even(steps).map((share) => shift((TABLE - Math.floor(share * TABLE)) / TABLE)),
  /** shift of n + 1 even values from 1 to s₁, without the last. */
  sgm_uniform: (steps, shift) => even(steps).map((share) => shift(1 + share * (shift(1 / TABLE) - 1))),
  /** shift of n even values from 1 to s₁: the last step is tiny. */
  normal: (steps, shift) => inclusive(steps).map((share) => shift(1 + share * (shift(1 / TABLE) - 1))),
  /** s at the quantiles of a Beta(0.6, 0.6) distribution, more steps at both ends; equal ones are dropped. Lee et al. 2024, https://arxiv.org/abs/2407.12173 */
  beta: (steps, shift) => {
    const rows = even(steps).map((share) => roundHalfEven(betaQuantile(1 - share) * (TABLE - 1)));
    return rows.filter((row, i) => row !== rows[i - 1]).map((row) => shift((row + 1) / TABLE));
  },
  /** Even steps down to 0.975, then a parabola to 0. Polyak et al. 2024 (Movie Gen), https://arxiv.org/abs/2410.13720, section 3.4.3 */
  linear_quadratic: (steps) => {
    const linear = Math.floor(steps / 2);
    const quadratic = steps - linear;
    if (linear === 0) return [1];
    // The parabola goes on from (linear, 0.025) with the line's slope, and reaches 1 at the last step.
    const slope = LINEAR_NOISE / linear;
    const curve = (1 - LINEAR_NOISE - slope * quadratic) / quadratic ** 2;
    return even(steps).map((_, i) => {
      const past = Math.max(0, i - linear);
      return 1 - (slope * i + curve * past ** 2);
    });
  },
  /** tan of even steps between atan(1) and atan(s₁). Sabour et al. 2024 (Align Your Steps), https://arxiv.org/abs/2404.14507, appendix */
  kl_optimal: (steps, shift) => {
    const [from, to] = [Math.atan(1), Math.atan(shift(1 / TABLE))];
    return inclusive(steps).map((share) => Math.tan(from + share * (to - from)));
  },
} as const satisfies Record<string, Schedule>;

export type NamedSchedule = keyof typeof SCHEDULES;

/**
 * @param steps at least 1
 * @returns falling values in (0, 1], without the final 0; `beta` may leave some out when there are hundreds
 */
export function namedSigmas(name: NamedSchedule, steps: number, shift: ShiftOf): number[] {
  return SCHEDULES[name](steps, shift);
}

/** i/n. */
const even = (steps: number): number[] => Array.from({ length: steps }, (_, i) => i / steps);
/** i/(n − 1): with both ends. */
const inclusive = (steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => (steps === 1 ? 0 : i / (steps - 1)));

function roundHalfEven(value: number): number {
  const down = Math.floor(value);
  const rest = value - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
}

/** The value below which a share `q` of Beta(0.6, 0.6) lies, by bisection to the last bit. */
export function betaQuantile(q: number): number {
  // Symmetric, and exact in the middle, which a table of even length rounds from.
  if (q > 0.5) return 1 - betaQuantile(1 - q);
  if (q === 0.5) return 0.5;
  if (q <= 0) return 0;
  let [low, high] = [0, 1];
  for (;;) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) return middle;
    if (betaShare(middle) < q) low = middle;
    else high = middle;
  }
}

/**
 * The share of Beta(0.6, 0.6) below x: x^a (1 − x)^a / (a·B) · Σ of the hypergeometric series Π (2a + k − 1)/(a + k) · x.
 * Summed for the smaller of x and 1 − x, where each term is at most half of the one before.
 *
 * @see NIST Digital Library of Mathematical Functions, 8.17.8
 */
function betaShare(x: number): number {
  if (x > 0.5) return 1 - betaShare(1 - x);
  let [term, sum] = [1, 1];
  for (let k = 1; term > sum * 2 ** -54; k++) {
    term *= ((2 * BETA + k - 1) / (BETA + k)) * x;
    sum += term;
  }
  return ((x * (1 - x)) ** BETA / (BETA * BETA_FUNCTION)) * sum;
}
