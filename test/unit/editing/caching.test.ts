// What decides about cached steps, at sizes that no software driver has the time for: means of wide rows, programs of the real model.
import { expect, it } from 'vitest';
import { compile } from '../../../kernels-codegen/src/compile.ts';
import { Builder } from '../../../kernels-codegen/src/graph/builder.ts';
import { evaluateGraph } from '../../../kernels-codegen/src/graph/evaluate.ts';
import { meanIn, momentGroups } from '../../../kernels-codegen/src/models/moments.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { gaussian } from '../../support/views.ts';

it('reads the mean of a whole tensor out of its groups’ moments', () => {
  const next = gaussian(3);
  for (const [rows, cols] of [
    [5, 16],
    [7, 192],
    [3, 3072],
    [4, 130],
  ] as const) {
    const g = new Builder();
    const x = g.input('x', rows, cols);
    const [ones, zeros] = [g.input('ones', 1, cols), g.input('zeros', 1, cols)];
    expect(cols % momentGroups(cols)).toBe(0);
    g.output('moments', g.moments(x, ones, zeros, momentGroups(cols), 'moments'));
    const values = Float64Array.from({ length: rows * cols }, () => next() + 0.3);
    const ports = { x: values, ones: new Array(cols).fill(1), zeros: new Array(cols).fill(0) };
    const { moments } = evaluateGraph(g.finish(), { ports, weight: () => [] });
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    expect(meanIn(moments!, cols)).toBeCloseTo(mean, 10);
  }
});

it('has programs for cached and guided steps of the real model, on every kind of target', () => {
  const grid = { height: 64, width: 64 };
  const shape = { spec: FLUX1_KONTEXT_DEV.transformer, textTokens: 512, image: grid, references: [grid] };
  for (const name of ['baseline', 'nvidia', 'apple-m-matrix']) {
    for (const component of ['denoise-first', 'denoise-rest', 'denoise-skip', 'denoise-nag'] as const) {
      expect(compile({ component, ...shape, target: targetByName(name) }).dispatches.length).toBeGreaterThan(2);
    }
  }
});
