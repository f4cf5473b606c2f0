// Sizes as data: on CPU adapters little products of one form share a text, and everything else keeps its literals.

import { describe, expect, it } from 'vitest';
import { add, mul, operand } from '../../../kernels-codegen/src/expr/expr.ts';
import { conv2d } from '../../../kernels-codegen/src/kernels/conv2d/index.ts';
import { headNorm } from '../../../kernels-codegen/src/kernels/head-norm.ts';
import { allBindings, type KernelSource } from '../../../kernels-codegen/src/kernels/kernel.ts';
import { matmul } from '../../../kernels-codegen/src/kernels/matmul/index.ts';
import { pointwise } from '../../../kernels-codegen/src/kernels/pointwise.ts';
import { rowNorm } from '../../../kernels-codegen/src/kernels/row-norm.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { SizeTable, withSizes } from '../../../kernels-codegen/src/wgsl/sizes.ts';
import { bias, gatedResidual, matmulSpec } from '../../support/matmul-shapes.ts';
import { conv2dSpec } from '../../support/oracle-conv2d.ts';
import { view } from '../../support/views.ts';

const software = targetByName('lavapipe');
const gpu = targetByName('nvidia');

/** Two shapes of each family, alike but for sizes. */
const PAIRS: [string, (target: TargetProfile) => [KernelSource, KernelSource]][] = [
  [
    'matmul',
    (target) => [
      matmul(matmulSpec({ m: 64, n: 96, k: 128, type: 'f16', format: 'q8', epilogue: bias }), target),
      matmul(matmulSpec({ m: 32, n: 160, k: 192, type: 'f16', format: 'q8', epilogue: bias }), target),
    ],
  ],
  [
    'matmul of two segments, into what was there',
    (target) => [
      matmul(matmulSpec({ m: 64, n: 96, k: [64, 32], epilogue: gatedResidual }), target),
      matmul(matmulSpec({ m: 32, n: 160, k: [32, 96], epilogue: gatedResidual }), target),
    ],
  ],
  [
    'conv2d',
    (target) => [
      conv2d(conv2dSpec({ height: 16, width: 24, cin: 32, cout: 32, normalised: true }), target),
      conv2d(conv2dSpec({ height: 32, width: 8, cin: 16, cout: 64, normalised: true }), target),
    ],
  ],
  [
    'head norm',
    (target) =>
      [24, 40].map((rows) => {
        const x = view('f32', rows, 3 * 64, { rowStride: 9 * 64 + rows * 4, offset: rows * 4 });
        const rope = { offset: 0, rowStride: 64, length: rows * 64 };
        return headNorm({ heads: 3, size: 64, eps: 1e-6, x, out: x, inPlace: true, scaleType: 'f32', rope }, target);
      }) as [KernelSource, KernelSource],
  ],
  [
    'row norm',
    (target) =>
      [24, 40].map((rows) => {
        const x = view('f32', rows, 192, { rowStride: 192 + rows, offset: 0 });
        return rowNorm({ kind: 'layer', eps: 1e-6, x, epilogue: bias(192), out: x }, target);
      }) as [KernelSource, KernelSource],
  ],
  [
    'pointwise',
    (target) =>
      [64, 96].map((cols) => {
        const out = view('f32', 256, cols);
        const { operands } = gatedResidual(cols, out);
        const expr = add(operand(0), mul(operand(1), operand(2)));
        return pointwise({ epilogue: { expr, operands, inPlace: 0 }, out }, target);
      }) as [KernelSource, KernelSource],
  ],
];

describe.each(PAIRS)('%s', (_, pair) => {
  it('has one text for both shapes on a CPU, and two tables', () => {
    const [a, b] = pair(software);
    expect(a.wgsl).toBe(b.wgsl);
    expect(a.sizes).not.toEqual(b.sizes);
    expect(allBindings(a)).toEqual([...a.bindings, 'uniform']);
  });

  it('has literals and nothing more to bind on a GPU', () => {
    const [a, b] = pair(gpu);
    expect(a.wgsl).not.toBe(b.wgsl);
    for (const kernel of [a, b]) {
      expect(kernel.sizes).toBeUndefined();
      expect(kernel.wgsl).not.toContain('sizes');
      expect(allBindings(kernel)).toEqual(kernel.bindings);
    }
  });
});

it('leaves literals in products that take a CPU longer to run than to compile', () => {
  const large = matmul(matmulSpec({ m: 512, n: 512, k: 256 }), software);
  expect(large.wgsl).not.toContain('sizes');
  const image = conv2d(conv2dSpec({ height: 64, width: 64, cin: 64, cout: 64 }), software);
  expect(image.wgsl).not.toContain('sizes');
});

it('keeps two numbers of one name apart, and gives one field to equal ones', () => {
  const sizes = new SizeTable();
  expect([sizes.of('n', 5), sizes.of('n', 7), sizes.of('n', 5), sizes.signed('n', 7)]).toEqual([
    'sizes.n',
    'sizes.n_2',
    'sizes.n',
    'i32(sizes.n_2)',
  ]);
  expect([...sizes.data]).toEqual([5, 7]);
});

it('declares the table behind directives, and none that is empty', () => {
  const sizes = new SizeTable();
  const kernel = { wgsl: 'enable f16;\nenable subgroups;\nvar<private> x: f16;', bindings: ['read'] };
  expect(withSizes(kernel, sizes)).toBe(kernel);
  sizes.of('n', 5);
  const { wgsl } = withSizes(kernel, sizes);
  expect(wgsl.split('\n').slice(0, 2)).toEqual(['enable f16;', 'enable subgroups;']);
  expect(wgsl).toContain('@group(0) @binding(1) var<uniform> sizes: Sizes;');
});
