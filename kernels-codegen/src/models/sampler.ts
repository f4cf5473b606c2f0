// The sampler's arithmetic between two velocity evaluations, on the GPU so that nothing is read back while denoising.
// Euler steps of the probability-flow ODE of rectified flow (Liu et al. 2022, arXiv:2209.03003).

import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph, Tensor } from '../graph/graph.ts';

/** latents ← latents + dt · velocity, with dt = σ_next − σ. */
export function buildEuler(g: Builder, tokens: number, channels: number): Graph {
  const latents = g.state('latents', tokens, channels);
  const velocity = g.input('velocity', tokens, channels);
  const dt = g.cols(g.input('step', 1, 4), 0, 1);
  g.update(latents, g.map([latents, velocity, dt], e.add(e.operand(0), e.mul(e.operand(1), e.operand(2))), 'euler'));
  return g.finish();
}

/** velocity ← negative + scale · (velocity − negative): classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598). */
export function buildCfgVelocity(g: Builder, tokens: number, channels: number): Graph {
  const velocity = g.state('velocity', tokens, channels);
  const negative = g.input('negative', tokens, channels);
  const scale = g.cols(g.input('scale', 1, 4), 0, 1);
  const mixed = e.add(e.operand(1), e.mul(e.operand(2), e.sub(e.operand(0), e.operand(1))));
  g.update(velocity, g.map([velocity, negative, scale], mixed, 'true cfg'));
  return g.finish();
}

/**
 * velocity ← α·negative + scale · (velocity − α·negative), with α = ⟨velocity, negative⟩ / ‖negative‖² over the whole picture: the multiple
 * of the negative velocity nearest the positive one (Fan et al. 2025, CFG-Zero*, https://arxiv.org/abs/2503.18886, equation 9). `ones` and
 * `zeros` are what their names say; sums come as means, out of moments (see `meanIn`).
 */
export function buildCfgZeroVelocity(g: Builder, tokens: number, channels: number): Graph {
  const velocity = g.state('velocity', tokens, channels);
  const negative = g.input('negative', tokens, channels);
  const scale = g.cols(g.input('scale', 1, 4), 0, 1);
  const [ones, zeros] = [g.input('ones', 1, channels), g.input('zeros', 1, channels)];
  const meanOf = (a: Tensor, b: Tensor, label: string): Tensor => {
    const moments = g.moments(
      g.map([a, b], e.mul(e.operand(0), e.operand(1)), label),
      ones,
      zeros,
      1,
      `moments of ${label}`,
    );
    const [inverse, shift] = [0, 1].map((row) => g.cols(g.rows(moments, row, 1), 0, 1)) as [Tensor, Tensor];
    return g.map([shift, inverse], e.neg(e.div(e.operand(0), e.operand(1))), `mean of ${label}`);
  };
  // The negative velocity's square is 0 only where it is: any α will then do.
  const [p, n, s, dot, square] = [0, 1, 2, 3, 4].map(e.operand) as [e.Expr, e.Expr, e.Expr, e.Expr, e.Expr];
  const nearest = e.mul(e.div(dot, e.max(square, 1e-20)), n);
  const values = [velocity, negative, scale, meanOf(velocity, negative, 'v⁺·v⁻'), meanOf(negative, negative, 'v⁻·v⁻')];
  g.update(velocity, g.map(values, e.add(nearest, e.mul(s, e.sub(p, nearest))), 'cfg zero star'));
  return g.finish();
}

/**
 * latents ← (1 − mask) · (σ · noise + (1 − σ) · known) + mask · latents, with σ = step[0]: after each step of an inpainting the
 * part to keep is put back, noised as the next step expects it (Lugmayr et al. 2022, arXiv:2201.09865, section 4.1).
 */
export function buildKeepKnown(g: Builder, tokens: number, channels: number): Graph {
  const latents = g.state('latents', tokens, channels);
  const [mask, known, noise] = ['mask', 'known', 'noise'].map((name) => g.input(name, tokens, channels)) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  const sigma = g.cols(g.input('step', 1, 4), 0, 1);
  const [x, m, z, n, s] = [0, 1, 2, 3, 4].map(e.operand) as [e.Expr, e.Expr, e.Expr, e.Expr, e.Expr];
  const kept = e.add(e.mul(s, n), e.mul(e.sub(1, s), z));
  g.update(
    latents,
    g.map([latents, mask, known, noise, sigma], e.add(e.mul(e.sub(1, m), kept), e.mul(m, x)), 'keep known'),
  );
  return g.finish();
}

/**
 * One update of any linear sampler: d = keep₀·x + keep₁·v, then x ← move₀·x + move₁·d + move₂…₄·(d1, d2, d3) + move₅·noise, with x the
 * latents, v the velocity and `step` = (keep₀, keep₁, move₀ … move₅). The caller moves `derivative` into d1, d1 into d2, d2 into d3.
 */
export function buildSampler(g: Builder, tokens: number, channels: number): Graph {
  const latents = g.state('latents', tokens, channels);
  const [velocity, ...earlier] = ['velocity', 'd1', 'd2', 'd3', 'noise'].map((name) =>
    g.input(name, tokens, channels),
  ) as [Tensor, ...Tensor[]];
  const step = g.input('step', 1, 8);
  const coefficient = (i: number): Tensor => g.cols(step, i, 1);
  const times = (a: number, b: number): e.Expr => e.mul(e.operand(a), e.operand(b));
  const kept = e.add(times(0, 2), times(1, 3));
  const d = g.map([latents, velocity, coefficient(0), coefficient(1)], kept, 'derivative');
  // In three, because a dispatch may bind eight buffers only.
  const [d1, d2, d3, noise] = earlier as [Tensor, Tensor, Tensor, Tensor];
  const sum = (before: Tensor[], pairs: [Tensor, number][], label: string): Tensor => {
    const first = before.length;
    const terms = [
      ...before.map((_, i) => e.operand(i)),
      ...pairs.map((_, i) => times(first + i, first + pairs.length + i)),
    ];
    const values = [...before, ...pairs.map(([value]) => value), ...pairs.map(([, i]) => coefficient(i))];
    return g.map(
      values,
      terms.reduce((x, y) => e.add(x, y)),
      label,
    );
  };
  const now = sum(
    [],
    [
      [latents, 2],
      [d, 3],
    ],
    'of this step',
  );
  const last = sum(
    [now],
    [
      [d1, 4],
      [d2, 5],
    ],
    'of the last two',
  );
  const moved = sum(
    [last],
    [
      [d3, 6],
      [noise, 7],
    ],
    'sampler step',
  );
  g.update(latents, moved);
  g.output('derivative', d);
  return g.finish();
}

/**
 * Factors of a Taylor series in steps, from a new value y: f₀ ← y, f₁ ← a·(y − f₀), f₂ ← b·(f₁ − its old value), with `step` = (a, b):
 * one over the steps since the last value, 0 where there is none yet.
 */
export function buildTaylorUpdate(g: Builder, rows: number, cols: number): Graph {
  const [f0, f1, f2] = [g.state('f0', rows, cols), g.state('f1', rows, cols), g.state('f2', rows, cols)];
  const value = g.input('value', rows, cols);
  const step = g.input('step', 1, 4);
  const difference = e.mul(e.operand(2), e.sub(e.operand(0), e.operand(1)));
  const second = g.map(
    [value, f0, g.cols(step, 0, 1), f1, g.cols(step, 1, 1)],
    e.mul(e.operand(4), e.sub(difference, e.operand(3))),
    'f2',
  );
  g.update(f2, second);
  g.update(f1, g.map([value, f0, g.cols(step, 0, 1)], difference, 'f1'));
  g.update(f0, g.map([value], e.operand(0), 'f0'));
  return g.finish();
}

/** f₀ + k·f₁ + k²/2·f₂, k steps after the last value; `step` = (k, k²/2). */
export function buildTaylorPredict(g: Builder, rows: number, cols: number): Graph {
  const values = ['f0', 'f1', 'f2'].map((name) => g.input(name, rows, cols)) as [Tensor, Tensor, Tensor];
  const step = g.input('step', 1, 4);
  const sum = e.add(e.operand(0), e.add(e.mul(e.operand(3), e.operand(1)), e.mul(e.operand(4), e.operand(2))));
  g.output('value', g.map([...values, g.cols(step, 0, 1), g.cols(step, 1, 1)], sum, 'predicted'));
  return g.finish();
}
