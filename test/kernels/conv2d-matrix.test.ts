// Convolutions on matrix instructions against the float64 oracle; skipped where the adapter has none.
// `npm run test:matrix` runs them on a CPU, with Mesa's newest software driver (8×8×8, f16 → f32).
import { beforeAll, describe, expect, it } from 'vitest';
import { type Conv2dSchedule, chooseConv2dSchedule, conv2d } from '../../kernels-codegen/src/kernels/conv2d/index.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { matrixTarget } from '../support/matrix-target.ts';
import { CONV2D_SHAPES, type Conv2dShape, checkConv2d, conv2dSpec } from '../support/oracle-conv2d.ts';

describe('conv2d on subgroup matrices', () => {
  let gpu: TestDevice;
  let target: TargetProfile | undefined;

  beforeAll(async () => {
    gpu = await openTestDevice();
    target = matrixTarget(gpu);
  });

  const small = (storeTiles: number): Conv2dSchedule => ({
    variant: 'matrix',
    subgroupsM: 2,
    subgroupsN: 1,
    tilesM: 1,
    tilesN: 2,
    tileK: 16,
    storeTiles,
  });

  const cases = Object.entries(CONV2D_SHAPES).map(([name, shape], i) => ({ name, shape, storeTiles: 1 + (i % 2) }));
  /** The normalised cases start from f32, as the decoder's do; the others are f16 all through where nothing is added. */
  const narrowed = (shape: Conv2dShape): Conv2dShape => ({
    ...shape,
    x: shape.normalised ? 'f32' : 'f16',
    weight: 'f16',
    out: shape.epilogue ? 'f32' : 'f16',
  });
  it.each(cases)('$name', async ({ shape, storeTiles }) => {
    if (!target) return;
    await checkConv2d(gpu, narrowed(shape), target, small(storeTiles));
  });

  it.each([
    ['non-square, aligned', { tileK: 16 }],
    ['ragged pixels and channels', { tileK: 32 }],
    ['one pixel', { tileK: 64 }],
    ['RGB in', { tileK: 16 }],
    ['stride 2, odd sides', { tileK: 8 }],
    ['normalised', { tileK: 16, subgroupsN: 2 }],
    ['added to the output in place', { tileK: 32, subgroupsN: 4, tilesN: 1 }],
  ] as const)('two buffers: %s, %o', async (name, o) => {
    if (!target) return;
    await checkConv2d(gpu, narrowed(CONV2D_SHAPES[name]!), target, { ...small(1), buffers: 2, ...o } as Conv2dSchedule);
  });

  it('chosen schedule', async () => {
    if (!target) return;
    const shape: Conv2dShape = { height: 10, width: 15, cin: 40, cout: 72, x: 'f16', weight: 'f16' };
    expect(chooseConv2dSchedule(conv2dSpec(shape), target).variant).toBe('matrix');
    await checkConv2d(gpu, shape, target);
  });

  it('takes matrices for the large layers of the VAE and keeps f32 images off them', () => {
    const nvidia = targetByName('nvidia-matrix');
    const large: Conv2dShape = { height: 1024, width: 1024, cin: 128, cout: 128, x: 'f16', weight: 'f16' };
    const kernel = conv2d(conv2dSpec(large), nvidia);
    expect(kernel.needs.subgroupMatrix).toEqual({ m: 16, n: 16, k: 16, componentType: 'f16', resultType: 'f32' });
    expect(kernel.needs.workgroupBytes).toBeLessThanOrEqual(nvidia.limits.maxComputeWorkgroupStorageSize);
    expect(chooseConv2dSchedule(conv2dSpec({ ...large, x: 'f32' }), nvidia).variant).toBe('tiled');
    expect(conv2d(conv2dSpec(large), nvidia)).toEqual(kernel);
  });
});
