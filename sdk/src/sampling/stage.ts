// One step of a sampler as data, and Euler's, which every model is published with; the others are loaded when asked for.

/** One evaluation of the velocity v = v(x, σ) and the update that follows it. */
export interface SamplerStage {
  /** Which of the sigmas v is evaluated at. */
  at: number;
  /** d = keep[0] · x + keep[1] · v: what this evaluation tells, and what later ones may use. v itself, or x₀ = x − σ·v. */
  keep: readonly [x: number, v: number];
  /** x ← move[0] · x + move[1] · d + move[2…4] · the three d before it, newest first + move[5] · fresh noise */
  move: readonly [x: number, d: number, d1: number, d2: number, d3: number, noise: number];
  /** Whether x is at the next σ after it, so that a step of the schedule is done. */
  ends: boolean;
}

/** Velocity as it is. */
export const VELOCITY = [0, 1] as const;

/** Whether a sampler adds noise of its own. */
export const addsNoise = (stages: readonly SamplerStage[]): boolean => stages.some(({ move }) => move[5] !== 0);

/** x + (σ′ − σ)·v at every step, which remembers nothing. */
export const eulerStages = (sigmas: ArrayLike<number>): SamplerStage[] =>
  Array.from({ length: sigmas.length - 1 }, (_, i) => velocityStage(i, [sigmas[i + 1]! - sigmas[i]!]));

/** A step by this velocity and up to three before it. */
export function velocityStage(at: number, coefficients: readonly number[]): SamplerStage {
  const [d, d1 = 0, d2 = 0, d3 = 0] = coefficients as [number, ...number[]];
  return { at, keep: VELOCITY, move: [1, d, d1, d2, d3, 0], ends: true };
}
