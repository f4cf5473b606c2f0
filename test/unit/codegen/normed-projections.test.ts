// Which projections normalise their own heads: those that nobody else reads, on targets whose kernel can, with tables that are there before.
import { describe, expect, it } from 'vitest';
import { type Component, compile, optimize } from '../../../kernels-codegen/src/compile.ts';
import { Builder } from '../../../kernels-codegen/src/graph/builder.ts';
import type { Tensor } from '../../../kernels-codegen/src/graph/graph.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { lower } from '../../../kernels-codegen/src/plan/lower.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';

const grid = { height: 64, width: 64 };
const { transformer } = FLUX1_KONTEXT_DEV;
const denoise = (component: 'denoise' | 'denoise-nag'): Component => ({
  component,
  spec: transformer,
  textTokens: 512,
  image: grid,
  references: [grid],
});
const passesOf = (component: Component, target: string, taps: string[] = []): number => {
  const program = compile({ ...component, target: targetByName(target), taps });
  return program.dispatches.filter(({ kernel }) => program.kernels[kernel]!.label.startsWith('head-norm')).length;
};
const { doubleBlocks, singleBlocks } = transformer;

describe('norms of heads in the real model', () => {
  it.each([
    ['nvidia-matrix', 'denoise', 0],
    ['amd-rdna4', 'denoise-nag', 0],
    ['nvidia', 'denoise', 2 * (2 * doubleBlocks + singleBlocks)],
    ['lavapipe-matrix', 'denoise', 2 * (2 * doubleBlocks + singleBlocks)],
    // The last block's negative text is seen by nothing.
    ['nvidia', 'denoise-nag', 2 * (3 * doubleBlocks + 2 * singleBlocks)],
  ] as const)('%s, %s: %i passes over memory', (target, component, passes) => {
    expect(passesOf(denoise(component), target)).toBe(passes);
  });
  it('a projection that is looked at stays as it was', () => {
    expect(passesOf(denoise('denoise'), 'nvidia-matrix', ['double_blocks.3.img_attn.qkv'])).toBe(2);
  });
  it('saves the dispatches, and needs the same memory and operations', () => {
    const [fused, apart] = ['nvidia-matrix', 'nvidia'].map((name) =>
      compile({ ...denoise('denoise'), target: targetByName(name) }),
    );
    expect(apart!.dispatches.length - fused!.dispatches.length).toBe(2 * (2 * doubleBlocks + singleBlocks));
    expect(fused!.slabs).toEqual(apart!.slabs);
    const flops = (p: typeof fused) => p!.dispatches.reduce((sum, d) => sum + d.flops, 0);
    expect(flops(fused)).toBe(flops(apart));
  });
});

describe('norms of heads of any graph', () => {
  // Large enough for blocks of 128 columns; nothing is run.
  const [rows, size, heads] = [8192, 128, 24];
  const width = size * heads;
  /** Passes of a projection and its norm, with a table and further readers of both from `more`. */
  const passes = (
    table: (g: Builder) => Tensor | undefined,
    more?: (g: Builder, projected: Tensor) => Tensor,
  ): number => {
    const g = new Builder();
    const rope = table(g);
    const x = g.layerNorm(g.input('x', rows, 32), 1e-6, 'f16');
    const qkv = g.linear(x, 'qkv', 3 * width);
    const seen = more?.(g, qkv);
    const scales = { query: g.vector('query', size), key: g.vector('key', size) };
    const normed = g.headNorm(qkv, { heads, size, ...scales, ...(rope ? { rope } : {}), label: 'norm' });
    const [q, k, v] = [0, 1, 2].map((i) => g.cols(normed, i * width, width)) as [Tensor, Tensor, Tensor];
    g.output('y', g.linear(g.attention(q, k, v, { heads, scale: 0.1, label: 'attention' }), 'out', 32));
    if (seen) g.output('seen', seen);
    const target = targetByName('nvidia-matrix');
    const o = { component: 'test', label: 'test', target, quantization: 'none' as const, facts: {} };
    const program = lower(optimize(g.finish(), target), o);
    return program.kernels.filter(({ label }) => label.startsWith('head-norm')).length;
  };
  it('with a port as its table, a part of one, or none', () => {
    expect(passes((g) => g.input('rope', rows, size))).toBe(0);
    expect(passes((g) => g.rows(g.input('rope', rows + 4, size), 4, rows))).toBe(0);
    expect(passes(() => undefined)).toBe(0);
  });
  it('not with a table that the program computes', () => {
    expect(passes((g) => g.linear(g.input('angles', rows, 32), 'table', size))).toBeGreaterThan(0);
  });
  it('not where something else reads the projection', () => {
    const other = (g: Builder, projected: Tensor): Tensor => g.linear(projected, 'other', 32);
    expect(passes((g) => g.input('rope', rows, size), other)).toBeGreaterThan(0);
  });
});
