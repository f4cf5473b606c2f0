// Runs inside the sid system: creates the pipelines of the real model's programs on the device at hand, between marks.
// usage: kernels.ts [programs=denoise,vae-decode,t5] [quantization=none|q8|q4] [only=TEXT] [checked=1] [tier=f32|f16|subgroups]
//                   [schedules=PATTERN]   instead of the chosen schedules all that a profile may name and PATTERN matches, as {field:value,…}
// The compilers print to the same stream; report.ts reads what lies between the marks. `checked` keeps bounds checks, as a page has;
// `tier` goes no higher than that one: `subgroups` is what a browser without matrix instructions gets.

import { writeSync } from 'node:fs';
import { type CompileRequest, type Component, compile } from '../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import type { Tier } from '../../kernels-codegen/src/targets/types.ts';
import { candidatesOf, tunableShapes } from '../../kernels-codegen/src/tune/shapes.ts';
import { openDevice } from '../../runtime/src/gpu/open.ts';
import type { Mark, MarkEnd } from './marks.ts';

const options: Record<string, string | undefined> = Object.fromEntries(process.argv.slice(2).map((a) => a.split('=')));
const grid = { height: 64, width: 64 };
const { transformer, t5, vae } = FLUX1_KONTEXT_DEV;
const components: Record<string, Component> = {
  denoise: { component: 'denoise', spec: transformer, textTokens: 512, image: grid, references: [grid] },
  t5: { component: 't5', spec: t5, tokens: 512 },
  'vae-decode': { component: 'vae-decode', spec: vae, height: 1024, width: 1024 },
};

const gpu = await openDevice({ unchecked: !options.checked });
// The stand-in for Apple's driver is reported as a software renderer; its kernels are to be a GPU's all the same.
const { software: _, ...target } = targetFor(gpu.report, 'auto', tierNamed(options.tier));
for (const name of (options.programs ?? 'denoise,vae-decode,t5').split(',')) {
  const component = components[name];
  if (!component) throw new Error(`unknown program "${name}"; known: ${Object.keys(components).join(', ')}`);
  const quantization = (options.quantization ?? 'none') as 'none' | 'q8' | 'q4';
  const request = { ...component, target, quantization } as CompileRequest;
  for (const { label, wgsl, uses, flops } of options.schedules ? candidates(request) : kernels(request)) {
    if (options.only && !label.includes(options.only)) continue;
    const threads = Number(/@workgroup_size\((\d+)/.exec(wgsl)?.[1]);
    const mark: Mark = { program: name, label, uses, flops, threads };
    writeSync(2, `\n@@KERNEL ${JSON.stringify(mark)}\n`);
    const start = process.cpuUsage();
    let error: string | undefined;
    try {
      const module = gpu.device.createShaderModule({ code: wgsl });
      await gpu.device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: 'main' } });
    } catch (e) {
      error = (e as Error).message.replace(/\s+/g, ' ').slice(0, 300);
    }
    // The compiler's work, not the clock's: the machine may be busy with something else.
    const { user, system } = process.cpuUsage(start);
    const end: MarkEnd = { ms: Math.round((user + system) / 1000), ...(error ? { error } : {}) };
    writeSync(2, `\n@@END ${JSON.stringify(end)}\n`);
  }
}
process.exit(0);

function tierNamed(name = 'subgroup-matrix'): Tier {
  const tiers: readonly Tier[] = ['f32', 'f16', 'subgroups', 'subgroup-matrix'];
  const found = tiers.find((tier) => tier === name);
  if (!found) throw new Error(`unknown tier "${name}"; known: ${tiers.join(', ')}`);
  return found;
}

interface Kernel extends Pick<Mark, 'label' | 'uses' | 'flops'> {
  wgsl: string;
}

function kernels(request: CompileRequest): Kernel[] {
  const program = compile(request);
  return program.kernels.map(({ label, wgsl }, k) => {
    const uses = program.dispatches.filter((d) => d.kernel === k);
    return { label, wgsl, uses: uses.length, flops: uses.reduce((sum, d) => sum + d.flops, 0) };
  });
}

/** What `kontext tune` would measure, those whose schedules match. */
function candidates(request: CompileRequest): Kernel[] {
  return tunableShapes([request]).flatMap((shape) =>
    candidatesOf(shape, request.target).flatMap(({ schedule, kernel }) => {
      const fields = JSON.stringify(schedule).replaceAll('"', '');
      if (!new RegExp(options.schedules!).test(fields)) return [];
      const { label, wgsl, flops } = kernel();
      return [{ label: `${label} ${fields}`, wgsl, uses: shape.dispatches, flops: flops * shape.dispatches }];
    }),
  );
}
