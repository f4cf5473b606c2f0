// Schedules against their published values, samplers against the ODE they solve: order of convergence, evaluations, exact cases.
import { describe, expect, it } from 'vitest';
import { type SamplerName, samplerStages } from '../../../sdk/src/sampling/samplers.ts';
import {
  betaQuantile,
  exponentialShift,
  type NamedSchedule,
  namedSigmas,
} from '../../../sdk/src/sampling/schedules.ts';
import { addsNoise } from '../../../sdk/src/sampling/stage.ts';

describe('schedules', () => {
  // Four steps at μ = 1.15 (1024²), as ComfyUI makes them.
  const four: Record<NamedSchedule, number[]> = {
    simple: [1, 0.90453, 0.75951, 0.51284],
    sgm_uniform: [1, 0.90457, 0.75963, 0.51316],
    normal: [1, 0.86338, 0.61249, 0.001],
    beta: [1, 0.93678, 0.75958, 0.4025],
    linear_quadratic: [1, 0.9875, 0.975, 0.725],
    kl_optimal: [1, 0.57749, 0.26817, 0.00032],
  };
  it.each(Object.entries(four) as [NamedSchedule, number[]][])('%s', (name, expected) => {
    const sigmas = namedSigmas(name, 4, exponentialShift(1.15));
    expect(sigmas.length).toBe(4);
    for (const [i, sigma] of sigmas.entries()) expect(Math.abs(sigma - expected[i]!)).toBeLessThan(1e-5);
  });

  it('fall strictly from 1 and stay above 0, at any number of steps and any shift', () => {
    for (const name of Object.keys(four) as NamedSchedule[]) {
      for (const steps of [1, 2, 3, 5, 8, 12, 28, 50, 333, 1000]) {
        for (const mu of [0, 0.5, 1.15, 3]) {
          const sigmas = namedSigmas(name, steps, exponentialShift(mu));
          expect(sigmas[0], `${name} ${steps} ${mu}`).toBeCloseTo(1, 9);
          if (name !== 'beta') expect(sigmas.length).toBe(steps);
          sigmas.forEach((sigma, i) => {
            if (i > 0) expect(sigma, `${name} ${steps} ${mu} at ${i}`).toBeLessThan(sigmas[i - 1]!);
          });
          expect(sigmas.at(-1)).toBeGreaterThan(0);
        }
      }
    }
  });

  it('has the quantiles of the Beta distribution', () => {
    // scipy.stats.beta.ppf(q, 0.6, 0.6)
    const quantiles: [number, number][] = [
      [0.01, 0.0008612388215429059],
      [0.1, 0.03958440558878085],
      [0.25, 0.17568037865269498],
      [0.5, 0.5000000000000001],
      [0.6, 0.6372990092467856],
      [0.75, 0.824319621347305],
      [0.9, 0.9604155944112192],
      [0.99, 0.9991387611784571],
    ];
    for (const [q, x] of quantiles) expect(Math.abs(betaQuantile(q) / x - 1)).toBeLessThan(1e-12);
  });
});

/** Runs the stages on dx/dσ = v(x, σ) for a number. */
function solve(
  name: SamplerName,
  sigmas: readonly number[],
  v: (x: number, sigma: number) => number,
  x: number,
): number {
  const history = [0, 0, 0];
  for (const { at, keep, move } of samplerStages(name, sigmas)) {
    const d = keep[0] * x + keep[1] * v(x, sigmas[at]!);
    x = move[0] * x + move[1] * d + move[2] * history[0]! + move[3] * history[1]! + move[4] * history[2]!;
    history.unshift(d);
  }
  return x;
}

const even = (from: number, to: number, steps: number) =>
  Array.from({ length: steps + 1 }, (_, i) => from + ((to - from) * i) / steps);

/** Even steps and ones that shrink smoothly; neither goes to 0, where samplers take a last step of order one. */
const GRIDS: Record<string, (steps: number) => number[]> = {
  even: (steps) => even(1, 0.2, steps),
  shrinking: (steps) => even(0, 1, steps).map((t) => 0.2 ** t),
};

describe('samplers', () => {
  // dx/dσ = x·cos(3σ) + σ², solved by one with many steps of order four.
  const v = (x: number, sigma: number) => x * Math.cos(3 * sigma) + sigma * sigma;
  const exact = ((): number => {
    const steps = 4000;
    const h = -0.8 / steps;
    let [x, sigma] = [0.7, 1];
    for (let i = 0; i < steps; i++, sigma += h) {
      const k1 = v(x, sigma);
      const k2 = v(x + (h / 2) * k1, sigma + h / 2);
      const k3 = v(x + (h / 2) * k2, sigma + h / 2);
      const k4 = v(x + h * k3, sigma + h);
      x += (h / 6) * (k1 + 2 * k2 + 2 * k3 + k4);
    }
    return x;
  })();

  const orders: [SamplerName, string, number][] = [
    ['euler', 'even', 1],
    ['euler', 'shrinking', 1],
    ['heun', 'even', 2],
    ['heun', 'shrinking', 2],
    ['dpmpp_2m', 'even', 2],
    ['dpmpp_2m', 'shrinking', 2],
    ['res_multistep', 'even', 2],
    ['res_multistep', 'shrinking', 2],
    // Fixed coefficients are of a higher order on even steps only, and start with steps of lower order: two in all.
    ['ipndm', 'even', 2],
    ['deis', 'even', 2],
    ['deis', 'shrinking', 2],
  ];
  it.each(orders)('%s on %s steps converges with order %i', (name, grid, order) => {
    const error = (steps: number) => Math.abs(solve(name, GRIDS[grid]!(steps), v, 0.7) - exact);
    const measured = Math.log2(error(200) / error(400));
    expect(measured, `order ${measured.toFixed(2)}`).toBeGreaterThan(order - 0.15);
    if (order === 1) expect(measured).toBeLessThan(1.15);
  });

  it('take one evaluation a step, heun two but for the last', () => {
    const sigmas = [1, 0.8, 0.5, 0.2, 0];
    for (const name of ['euler', 'dpmpp_2m', 'res_multistep', 'ipndm', 'deis', 'euler_ancestral'] as const) {
      const stages = samplerStages(name, sigmas);
      expect(stages.map(({ at }) => at)).toEqual([0, 1, 2, 3]);
      expect(stages.every(({ ends }) => ends)).toBe(true);
    }
    const heun = samplerStages('heun', sigmas);
    expect(heun.map(({ at }) => at)).toEqual([0, 1, 1, 2, 2, 3, 3]);
    expect(heun.filter(({ ends }) => ends).length).toBe(4);
  });

  it('land on the picture when the velocity is constant along the way', () => {
    // x = (1 − σ)·picture + σ·noise: v = noise − picture everywhere, which is what a trained model aims at.
    for (const name of ['euler', 'heun', 'dpmpp_2m', 'res_multistep', 'ipndm', 'deis'] as const) {
      for (const steps of [1, 2, 3, 7]) {
        const sigmas = [...namedSigmas('simple', steps, exponentialShift(1.15)), 0];
        expect(
          solve(name, sigmas, () => 2.5 - -0.4, 2.5),
          `${name} ${steps}`,
        ).toBeCloseTo(-0.4, 12);
      }
    }
  });

  it('ancestral steps keep the variance of the way: η = 0 is Euler', () => {
    const sigmas = [1, 0.7, 0.4, 0.1, 0];
    const without = samplerStages('euler_ancestral', sigmas, { eta: 0 });
    expect(addsNoise(without)).toBe(false);
    without.forEach((stage, i) => {
      expect(stage.move[0]).toBeCloseTo(1, 12);
      expect(stage.move[1]).toBeCloseTo(sigmas[i + 1]! - sigmas[i]!, 12);
    });
    for (const eta of [0.3, 1]) {
      const stages = samplerStages('euler_ancestral', sigmas, { eta });
      expect(addsNoise(stages)).toBe(true);
      stages.slice(0, -1).forEach(({ move }, i) => {
        const [from, to] = [sigmas[i]!, sigmas[i + 1]!];
        // A picture p and noise n of variance 1: what comes out is (1 − σ′)·p + noise of standard deviation σ′.
        const ofPicture = move[0] * (1 - from) + move[1] * -1;
        const ofNoise = move[0] * from + move[1] * 1;
        expect(ofPicture).toBeCloseTo(1 - to, 12);
        expect(Math.hypot(ofNoise, move[5])).toBeCloseTo(to, 12);
      });
    }
  });
});
