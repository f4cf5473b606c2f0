// Guidance by a negative prompt: the graphs of NAG and CFG-Zero* against plain implementations, and when they say nothing.
import { describe, expect, it } from 'vitest';
import { buildGraph, type Component, compile, optimize } from '../../../kernels-codegen/src/compile.ts';
import { evaluateGraph } from '../../../kernels-codegen/src/graph/evaluate.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { modulationLayout } from '../../../runtime/src/program/modulation-rows.ts';
import { programFlops } from '../../../sdk/src/kontext/parts.ts';
import { fixturePath } from '../../support/cases.ts';
import { denoiseCase, fluxShape, fluxSpec, modulationCase } from '../../support/cases-transformer.ts';
import { matrixOf, plainNagVelocity } from '../../support/plain-flux.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';
import { gaussian } from '../../support/views.ts';

const fixture = 'transformer-bfl-small';
const weights = readSafetensors(fixturePath(`${fixture}/weights.safetensors`));
const weight = (name: string) => floatTensor(weights, name);
const spec = fluxSpec(fixture);
const shape = fluxShape(fixture, 'io.safetensors');
const evaluate = (request: Component, ports: Record<string, ArrayLike<number>>) =>
  evaluateGraph(optimize(buildGraph(request), targetByName('lavapipe')), { ports, weight });
const rows = [0, 1].map((index) => {
  const { request, inputs } = modulationCase(fixture, 'io.safetensors', index);
  return evaluate(request, inputs).modulation!;
}) as [Float64Array, Float64Array];
const [given, other] = [0, 1].map((index) => denoiseCase(fixture, 'io.safetensors', index).inputs) as [
  Record<string, Float32Array>,
  Record<string, Float32Array>,
];
const ports = { ...given, textNegative: other.text!, modulation: rows[0], modulationNegative: rows[1] };
const nag = (settings: [number, number, number], more = {}) =>
  evaluate({ component: 'denoise-nag', spec, ...shape }, { ...ports, nag: [...settings, 0], ...more }).velocity!;

const worst = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let most = a.length === b.length ? 0 : Number.POSITIVE_INFINITY;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
};

describe('normalised attention guidance', () => {
  it('equals a plain implementation, bounded and unbounded', () => {
    const layout = new Map(modulationLayout(spec).map((layer) => [layer.name, layer]));
    const cut = (row: Float64Array) => (name: string) => {
      const { first, count } = layout.get(name)!;
      return row.subarray(first, first + count);
    };
    for (const [scale, tau, alpha] of [
      [5, 2.5, 0.25],
      [5, 1.05, 1],
      [11, 100, 0.5],
    ] as const) {
      const plain = plainNagVelocity(
        { ...spec, weight },
        {
          latents: matrixOf(given.latents!, spec.outChannels),
          references: matrixOf(given.references!, spec.inChannels),
          text: matrixOf(given.text!, spec.textWidth),
          textNegative: matrixOf(other.text!, spec.textWidth),
          modulation: cut(rows[0]),
          modulationNegative: cut(rows[1]),
          rope: matrixOf(given.rope!, spec.hidden / spec.heads),
          scale,
          tau,
          alpha,
        },
      );
      const flat = plain.flatMap((row) => [...row]);
      const size = Math.max(...flat.map(Math.abs));
      expect(worst(nag([scale, tau, alpha]), flat) / size, `${scale} ${tau} ${alpha}`).toBeLessThan(1e-9);
    }
  });

  it('says nothing at scale 1, or when both texts are the same', () => {
    const plain = evaluate({ component: 'denoise', spec, ...shape }, ports).velocity!;
    expect(worst(nag([1, 2.5, 0.25]), plain)).toBeLessThan(1e-9);
    const same = { textNegative: given.text!, modulationNegative: rows[0] };
    expect(worst(nag([5, 2.5, 0.25], same), plain)).toBeLessThan(1e-9);
    expect(worst(nag([5, 2.5, 0.25]), plain)).toBeGreaterThan(1e-4);
  });

  it('costs well under half of a second evaluation at the real size', () => {
    const grid = { height: 64, width: 64 };
    const real = {
      spec: FLUX1_KONTEXT_DEV.transformer,
      textTokens: 512,
      image: grid,
      references: [grid],
      target: targetByName('nvidia'),
    };
    const [whole, guided] = (['denoise', 'denoise-nag'] as const).map((component) =>
      programFlops(compile({ component, ...real })),
    ) as [number, number];
    console.log(
      `An evaluation at 1024² + 1024²: ${tera(whole)}, with NAG ${tera(guided)}, ×${(guided / whole).toFixed(3)}`,
    );
    expect(guided / whole).toBeLessThan(1.45);
  });
});

const tera = (flops: number): string => `${(flops / 1e12).toFixed(0)} TFLOP`;

describe('CFG-Zero*', () => {
  const [tokens, channels] = [12, 64];
  const next = gaussian(5);
  const positive = Float64Array.from({ length: tokens * channels }, next);
  const run = (negative: Float64Array, scale: number) =>
    evaluate(
      { component: 'cfg-zero', tokens, channels },
      {
        velocity: positive,
        negative,
        scale: [scale, 0, 0, 0],
        ones: new Array(channels).fill(1),
        zeros: new Array(channels).fill(0),
      },
    ).velocity!;

  it('mixes with the multiple of the negative velocity that is nearest the positive one', () => {
    const negative = positive.map((v) => 0.6 * v + 0.5 * next() + 0.1);
    const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
    const alpha = dot(positive, negative) / dot(negative, negative);
    const expected = positive.map((v, i) => alpha * negative[i]! + 4 * (v - alpha * negative[i]!));
    expect(worst(run(negative, 4), expected)).toBeLessThan(1e-9);
  });

  it('gives the positive velocity when the negative one is a multiple of it, and stays finite when it is 0', () => {
    expect(
      worst(
        run(
          positive.map((v) => -3 * v),
          7,
        ),
        positive,
      ),
    ).toBeLessThan(1e-6);
    expect(run(new Float64Array(positive.length), 2).every(Number.isFinite)).toBe(true);
  });
});
