// Samplers of the probability-flow ODE dx/dσ = v(x, σ), as data: what is evaluated where, and how it moves the latents.
// Every one is a list of linear updates with coefficients known before the first step, so one small program runs them all.

import { type SamplerStage, VELOCITY, velocityStage } from './stage.ts';

/** Old derivatives that an update may use. */
export const HISTORY = 3;

export interface SamplerOptions {
  /** Of ancestral samplers: 0 adds no noise, 1 (default) as much as a step removes. */
  eta?: number;
}

interface Step {
  /** Index of the step. */
  i: number;
  /** σ before and after it. */
  from: number;
  to: number;
  /** σ before the last step and the one before that; undefined at the start. */
  before: readonly number[];
  eta: number;
}

const SAMPLERS = {
  /** x + (σ′ − σ)·v */
  euler: ({ i, from, to }) => [velocityStage(i, [to - from])],

  /** The trapezium rule: a second evaluation where an Euler step leads. The last step is Euler's, there is nothing to evaluate at 0. */
  heun: ({ i, from, to }) => {
    const dt = to - from;
    if (to === 0) return [velocityStage(i, [dt])];
    return [{ ...velocityStage(i, [dt]), ends: false }, velocityStage(i + 1, [dt / 2, -dt / 2])];
  },

  /** DPM-Solver++(2M), Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2, in t = −ln σ as k-diffusion has it. */
  dpmpp_2m: (step) => {
    const { i, from, to, before } = step;
    const decay = to / from;
    if (before[0] === undefined || to === 0) return [denoisedStage(i, from, decay, [1 - decay])];
    const r = Math.log(before[0] / from) / Math.log(from / to);
    return [denoisedStage(i, from, decay, [(1 - decay) * (1 + 1 / (2 * r)), -(1 - decay) / (2 * r)])];
  },

  /** Second-order exponential multistep, Zhang et al. 2023 (RES), https://arxiv.org/abs/2308.02157. */
  res_multistep: (step) => {
    const { i, from, to, before } = step;
    const decay = to / from;
    if (before[0] === undefined || to === 0) return [denoisedStage(i, from, decay, [1 - decay])];
    const h = Math.log(from / to);
    const c = -Math.log(before[0] / from) / h;
    const phi1 = Math.expm1(-h) / -h;
    const phi2 = (phi1 - 1) / -h;
    return [denoisedStage(i, from, decay, [h * (phi1 - phi2 / c), (h * phi2) / c])];
  },

  /** Improved PNDM of order four with the fixed coefficients of Adams and Bashforth: Zhang & Chen 2022, https://arxiv.org/abs/2204.13902. */
  ipndm: ({ i, from, to, before }) => {
    const order = to === 0 ? 1 : Math.min(before.length + 1, ADAMS_BASHFORTH.length);
    return [
      velocityStage(
        i,
        ADAMS_BASHFORTH[order - 1]!.map((coefficient) => coefficient * (to - from)),
      ),
    ];
  },

  /** DEIS of order three (the same paper, tAB): the polynomial through this and earlier velocities, integrated over the step. */
  deis: ({ i, from, to, before }) => {
    const nodes = to === 0 ? [from] : [from, ...before.slice(0, 2)];
    return [velocityStage(i, lagrangeIntegrals(nodes, from, to))];
  },

  /** Euler down to a lower σ, then noise up to the next: ancestral sampling in the form that rectified flow needs (ComfyUI's RF form). */
  euler_ancestral: ({ i, from, to, eta }) => {
    if (to === 0) return [velocityStage(i, [-from])];
    const down = to * (1 + (to / from - 1) * eta);
    const scale = (1 - to) / (1 - down);
    const noise = Math.sqrt(Math.max(0, to ** 2 - (down * scale) ** 2));
    return [{ at: i, keep: VELOCITY, move: [scale, scale * (down - from), 0, 0, 0, noise], ends: true }];
  },
} as const satisfies Record<string, (step: Step) => SamplerStage[]>;

export type SamplerName = keyof typeof SAMPLERS;

/** Coefficients of this velocity and those before it, for even steps. */
const ADAMS_BASHFORTH = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]];

/**
 * All evaluations and updates from the first σ to the last.
 *
 * @param sigmas falling, the last one 0
 */
export function samplerStages(
  name: SamplerName,
  sigmas: ArrayLike<number>,
  options: SamplerOptions = {},
): SamplerStage[] {
  const { eta = 1 } = options;
  return Array.from({ length: sigmas.length - 1 }, (_, i) => {
    const before = Array.from({ length: Math.min(i, HISTORY) }, (__, back) => sigmas[i - 1 - back]!);
    return SAMPLERS[name]({ i, from: sigmas[i]!, to: sigmas[i + 1]!, before, eta });
  }).flat();
}

function denoisedStage(at: number, sigma: number, decay: number, coefficients: readonly number[]): SamplerStage {
  const [d, d1 = 0] = coefficients as [number, ...number[]];
  return { at, keep: [1, -sigma], move: [decay, d, d1, 0, 0, 0], ends: true };
}

/** ∫ from `from` to `to` of each Lagrange polynomial over `nodes`; two-point Gauss is exact to the third degree. */
function lagrangeIntegrals(nodes: readonly number[], from: number, to: number): number[] {
  const middle = (from + to) / 2;
  const half = (to - from) / 2;
  const points = [middle - half / Math.sqrt(3), middle + half / Math.sqrt(3)];
  return nodes.map((node) => {
    const at = (sigma: number) =>
      nodes.reduce((product, other) => (other === node ? product : (product * (sigma - other)) / (node - other)), 1);
    return half * (at(points[0]!) + at(points[1]!));
  });
}
