// Nothing is kept that nobody chooses: every tile of the lists, every variant and every GPU profile is what some shape of the real
// model or of the demo model gets. A schedule that is added beside these without being chosen fails here.
import { beforeAll, describe, expect, it, vi } from 'vitest';
import type { BundleSpecs } from '../../../kernels-codegen/src/bundle/types.ts';
import { type CompileRequest, compile } from '../../../kernels-codegen/src/compile.ts';
import { CONV2D_TILES, chooseConv2dSchedule } from '../../../kernels-codegen/src/kernels/conv2d/schedule.ts';
import type { Conv2dSpec } from '../../../kernels-codegen/src/kernels/conv2d/spec.ts';
import { chooseMatmulSchedule, MATMUL_TILES } from '../../../kernels-codegen/src/kernels/matmul/schedule.ts';
import type { MatmulSpec } from '../../../kernels-codegen/src/kernels/matmul/spec.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { TARGETS } from '../../../kernels-codegen/src/targets/profiles.ts';
import { hasTier, type TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { justInTime } from '../../../sdk/src/kontext/programs.ts';
import { demoModel } from '../../../sdk/src/model/demo.ts';
import { openModel } from '../../../sdk/src/model/open.ts';
import { shapesFor } from '../../../sdk/src/programs/shapes.ts';

type Family = 'matmul' | 'conv2d';
const asked = vi.hoisted(() => new Map<string, { family: string; f16: boolean; spec: unknown }>());
const note = vi.hoisted(() => (family: string, spec: unknown, target: { tier: string }) => {
  const f16 = target.tier !== 'f32';
  asked.set(JSON.stringify([family, f16, spec]), { family, f16, spec });
});

vi.mock('../../../kernels-codegen/src/kernels/matmul/schedule.ts', async (original) => {
  const real = await original<typeof import('../../../kernels-codegen/src/kernels/matmul/schedule.ts')>();
  const choose: typeof real.chooseMatmulSchedule = (spec, target) => {
    note('matmul', spec, target);
    return real.chooseMatmulSchedule(spec, target);
  };
  return { ...real, chooseMatmulSchedule: choose };
});
vi.mock('../../../kernels-codegen/src/kernels/conv2d/schedule.ts', async (original) => {
  const real = await original<typeof import('../../../kernels-codegen/src/kernels/conv2d/schedule.ts')>();
  const choose: typeof real.chooseConv2dSchedule = (spec, target) => {
    note('conv2d', spec, target);
    return real.chooseConv2dSchedule(spec, target);
  };
  return { ...real, chooseConv2dSchedule: choose };
});

/** What each profile gets for all shapes that were asked for, by family. */
const chosen = new Map<TargetProfile, { family: Family; schedule: { variant: string } }[]>();

beforeAll(async () => {
  const demo = await openModel(demoModel());
  const demoSpecs = await justInTime().specs(demo);
  await demo.close();
  const models: [BundleSpecs, { width: number; height: number }[], number, number][] = [
    [
      FLUX1_KONTEXT_DEV,
      [
        { width: 1024, height: 1024 },
        { width: 672, height: 1568 },
      ],
      512,
      28,
    ],
    [demoSpecs, [{ width: 64, height: 64 }], 16, 12],
  ];
  // What is asked of a chooser depends on a target by the types alone.
  for (const target of [
    TARGETS.find(({ name }) => name === 'nvidia-f32')!,
    TARGETS.find(({ name }) => name === 'nvidia')!,
  ]) {
    for (const [specs, sizes, textTokens, steps] of models) {
      for (const shape of shapesFor({ sizes, references: undefined, steps: [steps], textTokens })) {
        const part = PART_OF[shape.component];
        if (shape.component.startsWith('preview')) continue;
        // Rooms for adapters of usual ranks make products of few columns.
        const rooms = shape.component === 'denoise' ? [undefined, 8, 16] : [undefined];
        for (const room of rooms) {
          const request = { ...shape, ...(part && { spec: specs[part] }), ...(room && { room }), target };
          compile(request as CompileRequest);
        }
      }
    }
  }
  const specs = [...asked.values()];
  for (const target of TARGETS) {
    const f16 = hasTier(target, 'f16');
    const list = specs.filter((one) => one.f16 === f16);
    chosen.set(
      target,
      list.map(({ family, spec }) =>
        family === 'matmul'
          ? { family, schedule: chooseMatmulSchedule(spec as MatmulSpec, target) }
          : { family: 'conv2d', schedule: chooseConv2dSchedule(spec as Conv2dSpec, target) },
      ),
    );
  }
}, 300_000);

const PART_OF: Partial<Record<string, keyof BundleSpecs>> = {
  clip: 'clip',
  t5: 't5',
  modulation: 'transformer',
  denoise: 'transformer',
  'vae-encode': 'vae',
  'vae-decode': 'vae',
};

const schedulesOf = (family: Family) =>
  new Set([...chosen.values()].flat().flatMap((one) => (one.family === family ? [JSON.stringify(one.schedule)] : [])));

describe('every schedule of the lists is chosen by a shape of the models on some GPU', () => {
  it.each([
    ['matmul', MATMUL_TILES],
    ['conv2d', CONV2D_TILES],
  ] as const)('%s', (family, tiles) => {
    const found = schedulesOf(family);
    expect(found.size).toBeGreaterThan(3);
    expect(tiles.map((tile) => JSON.stringify(tile)).filter((tile) => !found.has(tile))).toEqual([]);
  });
});

it('every variant is chosen', () => {
  const variants = (family: Family) =>
    new Set([...schedulesOf(family)].map((text) => JSON.parse(text).variant as string));
  expect(variants('matmul')).toEqual(new Set(['tiled', 'skinny', 'direct', 'matrix']));
  expect(variants('conv2d')).toEqual(new Set(['tiled', 'direct', 'matrix']));
});

it('every profile gets something that no other does', () => {
  const texts = new Map<string, string[]>();
  for (const [{ name, ...facts }, list] of chosen) {
    const text = JSON.stringify([list.map(({ schedule }) => schedule), facts]);
    texts.set(text, [...(texts.get(text) ?? []), name]);
  }
  // Two generations with the same limits and matrix shapes, apart because schedules are measured for one device.
  expect([...texts.values()].filter((names) => names.length > 1)).toEqual([['amd-rdna3', 'amd-rdna4']]);
});
