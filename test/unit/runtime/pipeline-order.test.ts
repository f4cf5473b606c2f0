// Pipelines are asked for in the order of their first dispatch, all of them before a weight is there: compilers and disk work side by side.
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { type CompileRequest, compile } from '../../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { Executable } from '../../../runtime/src/execute/executable.ts';
import type { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import { openDevice } from '../../../runtime/src/gpu/open.ts';
import type { Program } from '../../../runtime/src/program/types.ts';
import type { Weights } from '../../../runtime/src/weights/store.ts';
import { affineTwice } from '../../support/tiny-program.ts';

let gpu: KontextDevice;
beforeAll(async () => {
  gpu = await openDevice();
});
afterAll(() => gpu.destroy());

/** Labels of a program's kernels as its dispatches come to them. */
const byFirstUse = ({ kernels, dispatches }: Program): string[] =>
  [...new Set(dispatches.map(({ kernel }) => kernel))].map((kernel) => kernels[kernel]!.label);

const { transformer, t5, clip, vae } = FLUX1_KONTEXT_DEV;
const grid = { height: 64, width: 64 };
const target = targetByName('apple-m');
const REQUESTS: CompileRequest[] = [
  { component: 'denoise', target, spec: transformer, textTokens: 512, image: grid, references: [grid] },
  { component: 'vae-decode', target, spec: vae, height: 512, width: 512 },
  { component: 't5', target, spec: t5, tokens: 512 },
  { component: 'clip', target, spec: clip, tokens: 77 },
];

it.each(REQUESTS)('$component lists its kernels in the order of first use', (request) => {
  const program = compile(request);
  expect(program.kernels.length).toBeGreaterThan(3);
  expect(program.kernels.map(({ label }) => label)).toEqual(byFirstUse(program));
});

it('asks for every pipeline in that order while the weights are still being read', async () => {
  const one = affineTwice(64);
  const other = (label: string) => ({ ...one.kernels[0]!, label, wgsl: `// ${label}\n${one.kernels[0]!.wgsl}` });
  const program: Program = {
    ...one,
    kernels: [other('first'), other('second')],
    dispatches: one.dispatches.map((dispatch, kernel) => ({ ...dispatch, kernel })),
  };
  const asked = vi.spyOn(gpu.device, 'createComputePipelineAsync');
  const done: string[] = [];
  let read!: (buffer: GPUBuffer) => void;
  const weights = {
    gpu,
    get: () => new Promise<GPUBuffer>((resolve) => (read = resolve)),
    release() {},
  } as unknown as Weights;
  const binding = Executable.create(gpu, program, {
    weights,
    onProgress: ({ phase, done: count, total }) => done.push(`${phase} ${count}/${total}`),
  });
  // The disk is as slow as it can be: nothing is read until all pipelines are there.
  await vi.waitFor(() => expect(done).toEqual(['kernels 1/2', 'kernels 2/2']));
  expect(asked.mock.calls.map(([{ label }]) => label)).toEqual(byFirstUse(program));
  read(await gpu.allocate('w', 256, 0x80));
  await (await binding).dispose();
  expect(gpu.uncapturedErrors).toEqual([]);
});
