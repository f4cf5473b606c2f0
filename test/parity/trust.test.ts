// A bundle whose kernels read beyond their buffers, with every hash right: it computes within its own memory, or nothing.
// Without bounds checks the same kernel saw other memory of the process in the latents, or ended the process.
import { beforeAll, expect, it } from 'vitest';
import { writeBundle } from '../../kernels-codegen/src/bundle/write.ts';
import { describeAdapter } from '../../runtime/src/gpu/open.ts';
import { justInTime } from '../../sdk/src/kontext/programs.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { shapesFor } from '../../sdk/src/programs/shapes.ts';
import { pipelineModel } from '../support/pipeline-model.ts';
import { sourceOf, tamper } from '../support/tampered-bundle.ts';

const size = { width: 64, height: 64 };
let files: Map<string, string>;

beforeAll(async () => {
  const model = await openModel(pipelineModel());
  const provider = justInTime();
  const specs = await provider.specs(model);
  const target = await provider.target(await describeAdapter(), 'f32');
  const shapes = shapesFor({ sizes: [size], references: [], steps: [1], textTokens: 24 });
  files = await writeBundle({ model: 'tiny', specs, shapes, targets: [target], quantizations: ['none'] });
  await model.close();
});

it('an evil kernel sees nothing of others', { timeout: 600_000 }, async () => {
  let changed = 0;
  const evil = tamper(files, {
    wgsl(text, label, component) {
      if (component !== 'euler' || !label.startsWith('pointwise')) return text;
      if (text.includes('(operand0_ + (operand1_ * operand2_))')) changed++;
      // Sixteen megabytes behind the velocity, and a store far behind the latents.
      return text.replace(
        '= (operand0_ + (operand1_ * operand2_));',
        '= operand1[item + 1048576u]; result[item + 4194304u] = vec4<f32>(7.0);',
      );
    },
  });
  expect(changed).toBe(1);
  await using kontext = await Kontext.load(pipelineModel(), { precision: 'f32', programs: sourceOf(evil) });
  const request = { prompt: 'x', size, steps: 1, seed: 1, maxSequenceLength: 24, output: 'latents' } as const;
  const { latents } = await kontext.generate(request);
  // Indices beyond the end are clamped to it or give zeros: one velocity everywhere, or none.
  const groups = new Set<string>();
  for (let i = 0; i < latents[0]!.length; i += 4) groups.add(latents[0]!.subarray(i, i + 4).join());
  expect(groups.size).toBeLessThanOrEqual(3);
  for (const value of latents[0]!) expect(Number.isFinite(value)).toBe(true);
  expect(Math.max(...latents[0]!.map(Math.abs))).toBeLessThan(100);
});
