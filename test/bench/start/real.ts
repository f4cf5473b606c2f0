// The programs of an edit with the real model, up to its first step: got, then parsed and validated by Dawn's null backend.
// The weights are 24 GB and the GPU is elsewhere, but what a bundle saves happens before either is needed.

import { create } from 'webgpu';
import type { Program } from '../../../runtime/src/program/types.ts';
import type { ProgramProvider, ProgramRequest } from '../../../sdk/src/kontext/programs.ts';
import { openPrograms } from '../../../sdk/src/programs/sources.ts';

const SHAPES = [
  { component: 'vae-encode', width: 1024, height: 1024 },
  { component: 'clip', tokens: 77 },
  { component: 't5', tokens: 512 },
  { component: 'modulation', steps: 28 },
  { component: 'denoise', textTokens: 512, image: grid(), references: [grid()] },
] as const;
const SPEC_OF = {
  'vae-encode': 'vae',
  clip: 'clip',
  t5: 't5',
  modulation: 'transformer',
  denoise: 'transformer',
} as const;

const gpu = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);
const device = await (await gpu.requestAdapter())!.requestDevice({
  requiredFeatures: ['shader-f16', 'subgroups' as GPUFeatureName],
});

const [bundle] = process.argv.slice(2);
const started = performance.now();
const programs: Program[] = bundle === undefined ? await compiled() : await read(openPrograms(bundle).provider);
const got = performance.now();
for (const { kernels } of programs) {
  for (const { wgsl } of kernels) await device.createShaderModule({ code: wgsl }).getCompilationInfo();
}
console.log(JSON.stringify({ 'programs at hand': got - started, 'and parsed by Dawn': performance.now() - started }));
// The instance must outlive the device, see docs/design/runtime.md.
void gpu;
process.exit(0);

/** The compiler's chunks are loaded first, as in an app. */
async function compiled(): Promise<Program[]> {
  const { FLUX1_KONTEXT_DEV: specs } = await import('../../../kernels-codegen/src/models/specs.ts');
  const { targetByName } = await import('../../../kernels-codegen/src/targets/profiles.ts');
  const { compile } = await import('../../../kernels-codegen/src/compile.ts');
  const target = targetByName('nvidia');
  return SHAPES.map((shape) => compile({ ...shape, spec: specs[SPEC_OF[shape.component]], target } as ProgramRequest));
}

async function read(provider: ProgramProvider): Promise<Program[]> {
  const target = { name: 'nvidia', tier: 'subgroups' };
  return Promise.all(SHAPES.map((shape) => provider.program({ ...shape, target } as unknown as ProgramRequest)));
}

function grid() {
  return { width: 64, height: 64 };
}
