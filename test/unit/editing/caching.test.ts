// What decides about cached steps, at sizes that no software driver has the time for: means of wide rows, programs of the real model.
import { expect, it } from 'vitest';
import { compile } from '../../../kernels-codegen/src/compile.ts';
import { Builder } from '../../../kernels-codegen/src/graph/builder.ts';
import { evaluateGraph } from '../../../kernels-codegen/src/graph/evaluate.ts';
import { meanIn, momentGroups } from '../../../kernels-codegen/src/models/moments.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { programFlops } from '../../../sdk/src/kontext/parts.ts';
import {
  grown,
  isWhole,
  pieces,
  regionOf,
  regionSize,
  regionSizes,
  regionTokens,
} from '../../../sdk/src/kontext/stages/region-tokens.ts';
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

it('takes the tokens that a mask lets change with those around them, in pieces that lie in one', () => {
  const grid = { width: 6, height: 5 };
  const mask = new Float32Array(30 * 64);
  mask[(2 * 6 + 5) * 64 + 63] = 1;
  mask[0] = 0.5;
  expect(regionTokens(mask, grid, 0)).toEqual([0, 17]);
  const wide = regionTokens(mask, grid, 1);
  expect(wide).toEqual([0, 1, 6, 7, 10, 11, 16, 17, 22, 23]);
  expect(pieces(wide)).toEqual([
    { from: 0, to: 0, count: 2 },
    { from: 6, to: 2, count: 2 },
    { from: 10, to: 4, count: 2 },
    { from: 16, to: 6, count: 2 },
    { from: 22, to: 8, count: 2 },
  ]);
  expect(regionTokens(mask, grid, 6)).toHaveLength(30);
  expect(pieces([...Array(30).keys()])).toEqual([{ from: 0, to: 0, count: 30 }]);
});

it('evaluates the whole at first, then every so often', () => {
  const whole = (interval: number, start: number) =>
    Array.from({ length: 9 }, (_, k) => (isWhole({ kind: 'region', interval, start, margin: 1 }, k) ? 'W' : '-')).join(
      '',
    );
  expect(whole(4, 2)).toBe('WW---W---');
  expect(whole(1, 1)).toBe('WWWWWWWWW');
  expect(whole(2, 3)).toBe('WWW-W-W-W');
});

it('rounds regions up to eighths of the picture, with the nearest tokens', () => {
  expect(regionSizes(4096)).toEqual([512, 1024, 1536, 2048, 2560, 3072, 3584]);
  expect(regionSizes(5)).toEqual([1, 2, 3, 4]);
  expect(regionSizes(1)).toEqual([]);
  expect([0, 1, 512, 513, 3584, 3585].map((wanted) => regionSize(4096, wanted))).toEqual([
    512,
    512,
    512,
    1024,
    3584,
    undefined,
  ]);
  const grid = { width: 6, height: 4 };
  expect(grown([9], grid, 1)).toEqual([9]);
  // First the eight around it, the lower number first; then those around these.
  expect(grown([9], grid, 6)).toEqual([2, 3, 4, 8, 9, 10]);
  expect(grown([9], grid, 9)).toEqual([2, 3, 4, 8, 9, 10, 14, 15, 16]);
  expect(grown([9], grid, 11)).toEqual([1, 2, 3, 4, 5, 8, 9, 10, 14, 15, 16]);
  expect(grown([0, 23], grid, 5)).toEqual([0, 1, 6, 7, 23]);
  expect(grown([], grid, 3)).toEqual([0, 1, 2]);
  const mask = new Float32Array(24 * 64);
  mask[9 * 64] = 1;
  const cache = (margin: number) => ({ kind: 'region', interval: 4, start: 2, margin }) as const;
  const job = { mask, target: { width: 96, height: 64 } };
  expect(regionOf(cache(0), job)).toEqual(grown([9], grid, 3));
  expect(regionOf(cache(1), job)).toHaveLength(9);
  expect(regionOf(cache(6), job)).toBeUndefined();
});

it('spares about half of an evaluation where a mask lets an eighth of the picture change', () => {
  const grid = { height: 64, width: 64 };
  const target = targetByName('nvidia');
  const flops = (tokens: number): number => {
    const image = { height: 1, width: tokens };
    const shape = { spec: FLUX1_KONTEXT_DEV.transformer, textTokens: 512, image, references: [grid], target };
    return programFlops(compile({ component: 'denoise-region', ...shape }));
  };
  const whole = flops(4096);
  const shares = [1, 2, 4].map((eighths) => [eighths, flops(512 * eighths) / whole] as const);
  for (const [eighths, work] of shares)
    console.log(`${eighths}/8 of the tokens: ${(100 * work).toFixed(0)} % of the work`);
  expect(shares[0]![1]).toBeLessThan(0.52);
});
