// The real 12-billion-parameter model at its real sizes: every program compiles, and WebGPU finds nothing wrong with it.
// On the null backend, which needs no GPU. What exceeds that backend's own small limits is checked structurally and counted.

import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type CompileRequest, type Component, compile } from '../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import { rowsAtOnce } from '../../runtime/src/program/modulation-rows.ts';
import type { Program } from '../../runtime/src/program/types.ts';
import { PREFERRED_KONTEXT_SIZES } from '../../sdk/src/host/sizes.ts';
import { openNullDevice } from '../support/null-device.ts';
import { encodeLarge } from './null-encode.ts';

const { transformer, t5, clip, vae } = FLUX1_KONTEXT_DEV;
/** One target of each tier. */
const TARGETS = ['nvidia-f32', 'apple-m-f16', 'nvidia', 'nvidia-matrix'];
const SIZES = PREFERRED_KONTEXT_SIZES;
const MiB = 2 ** 20;

/** No known device stops at f16 with large bindings, but the tier must work there: subgroups taken from a Mac. */
const target = (name: string) => {
  if (name !== 'apple-m-f16') return targetByName(name);
  const { subgroupSize: _, ...apple } = targetByName('apple-m');
  return { ...apple, name, tier: 'f16' as const };
};
const grid = ([width, height]: readonly [number, number]) => ({ width: width / 16, height: height / 16 });
const denoise = (size: readonly [number, number], edit: boolean): Component => ({
  component: 'denoise',
  spec: transformer,
  textTokens: 512,
  image: grid(size),
  references: edit ? [grid(size)] : [],
});

describe.each(TARGETS)('real model for %s', (name) => {
  const check = async (components: Component[]): Promise<void> => {
    const device = await openNullDevice(target(name));
    for (const component of components) {
      const program = compile({ ...component, target: target(name) } as CompileRequest);
      const { dispatches, structural, largeKernels } = await encodeLarge(device, program);
      console.log(
        `${program.label}: ${program.kernels.length} kernels, ${dispatches} dispatches` +
          ` (${structural} dispatches, ${largeKernels} kernels above the null backend's limits), slabs ${slabMiB(program)} MiB`,
      );
      expect(program.kernels.length, program.label).toBeLessThanOrEqual(40);
      for (const [limit, needed] of Object.entries(program.requires.limits)) {
        expect(needed, `${program.label}: ${limit}`).toBeLessThanOrEqual(
          target(name).limits[limit as keyof ReturnType<typeof target>['limits']],
        );
      }
    }
    device.device.destroy();
  };

  it('denoises at the preferred sizes, with and without a reference', { timeout: 600_000 }, async () => {
    await check(SIZES.flatMap((size) => [denoise(size, false), denoise(size, true)]));
  });

  it('encodes text and modulation', { timeout: 600_000 }, async () => {
    await check([
      { component: 'modulation', spec: transformer, steps: 28 },
      { component: 't5', spec: t5, tokens: 512 },
      { component: 'clip', spec: clip, tokens: 77 },
    ]);
  });

  it('encodes and decodes pictures', { timeout: 600_000 }, async () => {
    const sizes = SIZES.map(([width, height]) => ({ width, height }));
    await check(
      sizes.flatMap((size): Component[] => [
        { component: 'vae-encode', spec: vae, ...size },
        { component: 'vae-decode', spec: vae, ...size },
      ]),
    );
  });
});

describe("at WebGPU's default limits", () => {
  // In f32 one layer's weights would exceed a binding already.
  it.each(['q8', 'q4'] as const)(
    'makes the modulation of a thousand steps, window by window: %s',
    async (quantization) => {
      const baseline = targetByName('baseline');
      const rows = rowsAtOnce(1000, transformer, baseline.limits);
      const device = await openNullDevice(baseline);
      const program = compile({
        component: 'modulation',
        spec: transformer,
        steps: rows,
        target: baseline,
        quantization,
      });
      const { structural, largeKernels } = await encodeLarge(device, program);
      expect([structural, largeKernels]).toEqual([0, 0]);
      for (const [limit, needed] of Object.entries(program.requires.limits)) {
        expect(needed, limit).toBeLessThanOrEqual(baseline.limits[limit as keyof typeof baseline.limits]);
      }
      // The rows of a window lie in one buffer; the fewest windows, and none larger than needed.
      const bytes = program.ports.find(({ name }) => name === 'modulation')!.bytes;
      expect(bytes).toBeLessThanOrEqual(baseline.limits.maxStorageBufferBindingSize);
      expect([rows, Math.ceil(1000 / rows)]).toEqual([31, 33]);
      device.device.destroy();
    },
  );

  it('leaves the usual numbers of steps in one program', () => {
    const baseline = targetByName('baseline');
    for (const steps of [1, 4, 20, 28, 30]) expect(rowsAtOnce(steps, transformer, baseline.limits)).toBe(steps);
    for (const steps of [28, 50, 100])
      expect(rowsAtOnce(steps, transformer, targetByName('nvidia').limits)).toBe(steps);
    expect(rowsAtOnce(50, transformer, baseline.limits)).toBe(25);
  });
});

describe('the edit at 1024×1024', () => {
  const request = { ...denoise([1024, 1024], true), target: targetByName('nvidia'), quantization: 'q8' } as const;
  const program = compile(request as CompileRequest);

  it('needs the memory it always needed', () => {
    expect(slabMiB(program)).toBeLessThanOrEqual(550);
    const weights = program.weights.reduce((sum, { bytes }) => sum + bytes, 0);
    expect({
      slabs: program.slabs.map((bytes) => bytes / MiB),
      portMiB: Math.round(program.ports.reduce((sum, { bytes }) => sum + bytes, 0) / MiB),
      weightGiB: Number((weights / 2 ** 30).toFixed(2)),
      dispatches: program.dispatches.length,
    }).toMatchSnapshot();
  });

  it('is at most 150 KB of JSON gzipped', () => {
    expect(gzipSync(JSON.stringify(program)).length).toBeLessThanOrEqual(150_000);
  });

  it('compiles to the same bytes twice', () => {
    expect(JSON.stringify(compile(request as CompileRequest))).toBe(JSON.stringify(program));
  });
});

function slabMiB(program: Program): number {
  return Math.round(program.slabs.reduce((sum, bytes) => sum + bytes, 0) / MiB);
}
