// The demo model's edit with its matrices in q8 and q4: near f16's, smaller, and the same bits from a packed model, also with a bundle.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, expect, it } from 'vitest';
import { openDevice } from '../../runtime/src/gpu/open.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { packModel } from '../../sdk/src/model/pack.ts';
import { demoModel, Kontext, type LoadOptions } from '../../sdk/src/node.ts';
import { demoEdit } from '../support/demo-edit.ts';
import { psnr } from '../support/psnr.ts';

const TIMEOUT = { timeout: 600_000 };
const root = new URL('../..', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'kontext-quantized-'));
afterAll(() => rmSync(folder, { recursive: true }));

const { request, input } = await demoEdit();
async function edit(model: Parameters<typeof Kontext.load>[0], options: LoadOptions) {
  await using kontext = await Kontext.load(model, { memory: 'resident', ...options });
  const { image, memory } = await kontext.edit({ ...request, image: join(input.folder, input.file) });
  return { image, weightBytes: memory.weightBytes };
}
const edits = new Map<string, ReturnType<typeof edit>>();
const demo = (quantization: 'f16' | 'q8' | 'q4') => {
  const made = edits.get(quantization) ?? edit(demoModel(), { quantization });
  edits.set(quantization, made);
  return made;
};

it.each([
  ['q8', 48, 0.8],
  ['q4', 32, 0.7],
] as const)('%s acts on the demo model: %d dB to f16, %d of its bytes', TIMEOUT, async (quantization, least, share) => {
  const [exact, made] = [await demo('f16'), await demo(quantization)];
  console.log(
    `${quantization}: ${psnr(made.image, exact.image).toFixed(1)} dB, ${made.weightBytes} of ${exact.weightBytes} bytes`,
  );
  expect(made.weightBytes).toBeLessThan(share * exact.weightBytes);
  expect(made.image).not.toEqual(exact.image);
  expect(psnr(made.image, exact.image)).toBeGreaterThan(least);
});

it('packed in q4 it gives the bits of quantization q4, and with a bundle compiled for it too', TIMEOUT, async () => {
  const [packed, bundle] = [join(folder, 'packed'), join(folder, 'bundle')];
  const gpu = await openDevice();
  const model = await openModel(demoModel());
  try {
    await packModel(model, gpu, packed, { quantization: 'q4' });
  } finally {
    await model.close();
    gpu.destroy();
  }
  const { image } = await demo('q4');
  expect((await edit(packed, {})).image).toEqual(image);

  const args = [
    'compile',
    '--model',
    packed,
    '--target',
    'this',
    '--size',
    '64x64',
    '--steps',
    `${request.steps}`,
    '-o',
    bundle,
  ];
  await promisify(execFile)(process.execPath, ['--import', 'tsx', 'sdk/src/cli/main.ts', ...args], { cwd: root });
  expect((await edit(packed, { programs: bundle })).image).toEqual(image);
  // Its programs read blocks where the unpacked model has floats.
  await expect(edit(demoModel(), { programs: bundle })).rejects.toMatchObject({
    code: 'program-mismatch',
    message: expect.stringMatching(/reads .* as (f16|q8|q4); this model holds it as plain floats/),
  });
});
