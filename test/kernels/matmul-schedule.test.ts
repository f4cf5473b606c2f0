// What a matmul's chooser and generator promise without running: limits kept, tiers kept apart, bad input refused.
// Every real linear of the model, on every known target, passes through here.
import { describe, expect, it } from 'vitest';
import {
  chooseMatmulSchedule,
  type MatmulSchedule,
  type MatmulSpec,
  matmul,
  matmulShapeKey,
} from '../../kernels-codegen/src/kernels/matmul/index.ts';
import { TARGETS, targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import { hasTier, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { KontextError, type KontextErrorCode } from '../../runtime/src/errors.ts';
import { openTestDevice } from '../support/gpu.ts';
import { gatedResidual, type MatmulShape, matmulSpec } from '../support/matmul-shapes.ts';

/** m, n, k of linears and 1×1 convolutions of the real model. */
const REAL: [m: number, n: number, k: number | number[]][] = [
  [8704, 9216, 3072],
  [8704, 21504, 3072],
  [8704, 3072, [3072, 12288]],
  [512, 3072, 4096],
  [8192, 64, 3072],
  [8192, 3072, 64],
  [28, 18432, 3072],
  [1, 3072, 256],
  [77, 768, 3072],
  [512, 10240, 4096],
  [1024 * 1024, 128, 256],
  [16384, 512, 512],
];

const shapeFor = (target: TargetProfile, [m, n, k]: (typeof REAL)[number]): MatmulShape => ({
  m,
  n,
  k,
  ...(hasTier(target, 'f16') ? ({ type: 'f16', format: 'f16', out: 'f16' } as const) : {}),
  epilogue: gatedResidual,
  // Where sums may be packed, they are.
  normalised: true,
});

describe('matmul schedules', () => {
  it.each(TARGETS.map((t) => [t.name, t] as const))('%s: every real shape fits the limits', (_, target) => {
    for (const real of REAL) {
      const spec = matmulSpec(shapeFor(target, real));
      const { needs, workgroups, wgsl, label } = matmul(spec, target);
      expect(needs.invocations, label).toBeLessThanOrEqual(target.limits.maxComputeInvocationsPerWorkgroup);
      expect(needs.workgroupBytes, label).toBeLessThanOrEqual(target.limits.maxComputeWorkgroupStorageSize);
      expect(declaredWorkgroupBytes(wgsl), label).toBe(needs.workgroupBytes);
      for (const count of workgroups) expect(count, label).toBeLessThanOrEqual(65535);
      expect(/\bf16\b|enable/.test(wgsl), label).toBe(hasTier(target, 'f16'));
      expect(needs.features ?? [], label).toEqual(featuresOf(wgsl));
    }
  });

  // The null backend has every feature and checks WGSL without a GPU.
  it('every distinct text is valid WGSL', async () => {
    const { device, errors } = await openTestDevice(['backend=null']);
    const texts = new Map(
      TARGETS.flatMap((target) =>
        REAL.map((real) => matmul(matmulSpec(shapeFor(target, real)), target)).map((k) => [k.wgsl, k.label] as const),
      ),
    );
    expect(texts.size).toBeGreaterThan(30);
    for (const [code, label] of texts) {
      device.pushErrorScope('validation');
      const { messages } = await device.createShaderModule({ code, label }).getCompilationInfo();
      await device.popErrorScope();
      expect(
        messages.filter((m) => m.type === 'error').map((m) => `${m.lineNum}: ${m.message}`),
        label,
      ).toEqual([]);
    }
    expect(errors).toEqual([]);
  });

  it('uses matrix instructions for the blocks of the model where there are any', () => {
    const variantOf = (name: string, real: (typeof REAL)[number]): string =>
      chooseMatmulSchedule(matmulSpec(shapeFor(targetByName(name), real)), targetByName(name)).variant;
    for (const name of ['nvidia-matrix', 'apple-m-matrix']) {
      expect(REAL.slice(0, 3).map((real) => variantOf(name, real))).toEqual(['matrix', 'matrix', 'matrix']);
    }
    expect(REAL.slice(0, 3).map((real) => variantOf('nvidia', real))).toEqual(['tiled', 'tiled', 'tiled']);
    expect(variantOf('nvidia-matrix', [1, 3072, 256])).toBe('skinny');
    expect(variantOf('lavapipe', REAL[0]!)).toBe('direct');
  });

  it('takes a measured schedule from the profile', () => {
    const spec = matmulSpec({ m: 64, n: 64, k: 64 });
    const target = targetByName('baseline');
    const schedule: MatmulSchedule = { variant: 'tiled', threadsM: 32, threadsN: 1, rows: 4, cols: 4, tileK: 8 };
    const tuned = { ...target, tuned: { matmul: { [matmulShapeKey(spec, target)]: { ...schedule } } } };
    expect(chooseMatmulSchedule(spec, tuned)).toEqual(schedule);
    expect(matmul(spec, tuned).label).toContain('128×4×8');
    expect(chooseMatmulSchedule(spec, target)).not.toEqual(schedule);
  });

  it.each([
    ['no schedule of this version', { variant: 'tiled', threadsM: 3, threadsN: 5, rows: 7, cols: 4, tileK: 8 }],
    [
      'what the target cannot hold',
      { variant: 'matrix', subgroupsM: 2, subgroupsN: 2, tilesM: 4, tilesN: 4, tileK: 32 },
    ],
    ['anything else', { rows: 'enable f16;' }],
  ])('passes over %s in a profile', (_, schedule) => {
    const spec = matmulSpec({ m: 64, n: 64, k: 64 });
    const target = targetByName('baseline');
    const tuned = { ...target, tuned: { matmul: { [matmulShapeKey(spec, target)]: schedule } } };
    expect(matmul(spec, tuned)).toEqual(matmul(spec, target));
  });

  it('is a function: the same input gives the same kernel', () => {
    const spec = matmulSpec({ m: 100, n: 72, k: [24, 40], format: 'q8', epilogue: gatedResidual });
    expect(matmul(spec, targetByName('baseline'))).toEqual(matmul(structuredClone(spec), targetByName('baseline')));
  });

  it('counts work and traffic', () => {
    const spec = matmulSpec({ m: 8, n: 16, k: 32, format: 'q4', epilogue: gatedResidual });
    const { flops, bytes } = matmul(spec, targetByName('baseline'));
    expect(flops).toBe(2 * 8 * 16 * 32);
    // a, nibbles, scales, residual, gate and bias, output.
    expect(bytes).toBe(8 * 32 * 4 + 256 + 32 + 8 * 16 * 4 + 2 * 16 * 4 + 8 * 16 * 4);
  });

  it('folds more rows than one grid dimension holds', () => {
    const target = { ...targetByName('baseline') };
    const limited = { ...target, limits: { ...target.limits, maxComputeWorkgroupsPerDimension: 8 } };
    const spec = matmulSpec({ m: 1000, n: 16, k: 8 });
    const { workgroups, wgsl } = matmul(spec, limited);
    expect(workgroups[1]).toBeLessThanOrEqual(8);
    expect(workgroups[2]).toBeGreaterThan(1);
    expect(wgsl).toContain('group.z');
  });

  const baseline = targetByName('baseline');
  const good = (): MatmulSpec => matmulSpec({ m: 20, n: 8, k: 32 });
  const refused: [name: string, spec: MatmulSpec, code: KontextErrorCode, schedule?: MatmulSchedule][] = [
    ['segments that do not add up', { ...good(), weight: { format: 'f32', rows: 8, cols: 36 } }, 'program-invalid'],
    ['another output shape', { ...good(), out: { ...good().out, cols: 9 } }, 'program-invalid'],
    ['no segment', { ...good(), segments: [] }, 'program-invalid'],
    ['q4 rows that are no whole blocks', matmulSpec({ m: 20, n: 8, k: 20, format: 'q4' }), 'program-invalid'],
    ['f16 activations in tier f32', matmulSpec({ m: 20, n: 8, k: 32, type: 'f16' }), 'program-invalid'],
    ['too many buffers', matmulSpec({ m: 20, n: 8, k: [4, 4, 4, 4, 4, 4, 4, 4] }), 'program-invalid'],
    [
      'too much workgroup memory',
      good(),
      'limit-too-small',
      { variant: 'tiled', threadsM: 16, threadsN: 16, rows: 8, cols: 8, tileK: 32 },
    ],
    [
      'too many invocations',
      good(),
      'limit-too-small',
      { variant: 'tiled', threadsM: 32, threadsN: 16, rows: 1, cols: 4, tileK: 4 },
    ],
    ['more rows than a thread holds', good(), 'program-invalid', { variant: 'skinny', threads: 32, subgroups: false }],
    [
      'matrices without matrix instructions',
      good(),
      'program-invalid',
      { variant: 'matrix', subgroupsM: 1, subgroupsN: 1, tilesM: 1, tilesN: 1, tileK: 16, storeTiles: 1 },
    ],
  ];
  it.each(refused)('refuses %s', (_, spec, code, schedule) => {
    const run = (): unknown => (schedule ? matmul(spec, baseline, schedule) : matmul(spec, baseline));
    expect(run).toThrow(KontextError);
    expect(run).toThrow(expect.objectContaining({ code }));
  });
});

/** Bytes of every `var<workgroup>` array in a text. */
function declaredWorkgroupBytes(wgsl: string): number {
  const size: Record<string, number> = { f32: 4, 'vec4<f32>': 16, 'vec4<f16>': 8, 'vec2<u32>': 8, 'vec4<u32>': 16 };
  // What is no array takes a unit of 16.
  const single = [...wgsl.matchAll(/var<workgroup> \w+: atomic/g)].length * 16;
  return [...wgsl.matchAll(/var<workgroup> \w+: array<(f32|vec\d<[fu]\d\d>), (\d+)>/g)].reduce(
    (sum, [, type, count]) => sum + size[type!]! * Number(count),
    single,
  );
}

/** WebGPU features behind a text's `enable` directives, sorted. */
function featuresOf(wgsl: string): string[] {
  const names: Record<string, string> = {
    f16: 'shader-f16',
    subgroups: 'subgroups',
    subgroup_size_control: 'subgroup-size-control',
    chromium_experimental_subgroup_matrix: 'chromium-experimental-subgroup-matrix',
  };
  return [...wgsl.matchAll(/^enable (\w+);/gm)].map(([, name]) => names[name!]!).sort();
}
