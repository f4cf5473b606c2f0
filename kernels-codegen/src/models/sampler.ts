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
