// Devices and engines that are opened, used and closed over and over, or lose their device: nothing of them stays in the process.
// A thousand devices and 200 engines by `npm run test:long`; KONTEXT_LONG=N for N of either. In every test run: test/unit/runtime/cycles.test.ts.
import { beforeAll, describe, expect, it } from 'vitest';
import { Executable } from '../../runtime/src/execute/executable.ts';
import { openDevice } from '../../runtime/src/gpu/open.ts';
import type { PixelImage } from '../../sdk/src/image/pixels.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { caughtGpu } from '../support/caught-gpu.ts';
import { pipelineModel } from '../support/pipeline-model.ts';
import { hasProc, type ProcessUse, processUse } from '../support/process-use.ts';
import { busyProgram } from '../support/tiny-program.ts';

const image: PixelImage = { width: 64, height: 64, data: new Uint8ClampedArray(64 * 64 * 4).fill(200) };
const request = { image, prompt: 'grey', steps: 1, seed: 1, maxSequenceLength: 24, autoResize: false } as const;
const { gpu, lose } = caughtGpu();

async function engine(lost: boolean): Promise<void> {
  const kontext = await Kontext.load(pipelineModel(), { precision: 'f32', device: { gpu } });
  await kontext.edit({ ...request, size: 'input', output: 'latents' });
  if (lost) {
    lose();
    await kontext.edit({ ...request, size: 'input', output: 'latents' });
  }
  await kontext.close();
}

async function device(): Promise<void> {
  const opened = await openDevice({ gpu });
  const executable = await Executable.create(opened, busyProgram(2, 10));
  await executable.run();
  await executable.dispose();
  opened.destroy();
}

const megabytes = (bytes: number): number => Math.round(bytes / 1e6);
const mean = (uses: readonly ProcessUse[]): number =>
  uses.reduce((sum, { bytes }) => sum + bytes, 0) / Math.max(1, uses.length);

describe.runIf(hasProc && process.env.KONTEXT_LONG)('over and over', () => {
  beforeAll(() => {
    // With one arena for each of the driver's threads glibc spreads over all of them what is freed and asked for again.
    expect(process.env.MALLOC_ARENA_MAX, 'start it as `npm run test:long` does').toBe('1');
  });

  it.each<[string, number, () => Promise<void>]>([
    ['devices: open, run, close', 1000, device],
    ['engines: load, edit, close', 200, () => engine(false)],
    ['engines: load, edit, lose, edit, close', 50, () => engine(true)],
  ])('%s: threads, descriptors and memory stay as they were', { timeout: 14_400_000 }, async (name, usual, cycle) => {
    const asked = Number(process.env.KONTEXT_LONG);
    const cycles = asked > 1 ? asked : usual;
    for (let i = 0; i < 2; i++) await cycle();
    const uses = [await processUse()];
    for (let i = 1; i <= cycles; i++) {
      await cycle();
      if (i % Math.ceil(cycles / 20) === 0) uses.push(await processUse());
    }
    const [before, after] = [uses[0]!, uses.at(-1)!];
    const tenth = Math.ceil(uses.length / 10);
    // What the allocator and the driver's caches grow to at first is there after a tenth of the cycles.
    const [early, late] = [mean(uses.slice(tenth, 2 * tenth)), mean(uses.slice(-tenth))];
    console.log(
      `${name}: ${cycles} cycles, threads ${before.threads} to ${after.threads}, MB ${uses.map(({ bytes }) => megabytes(bytes)).join(' ')}`,
    );
    // A software driver keeps a thread for every core of each device that is left.
    expect(after.threads).toBeLessThanOrEqual(before.threads + 1);
    expect(after.files).toEqual(before.files);
    // A device that is left takes 18 MB and more: one in twenty would show.
    expect(late - early).toBeLessThan(Math.max(40e6, cycles * 0.05 * 1e6));
  });
});
