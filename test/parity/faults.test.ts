// One call after the other fails, until a run has no failure left, as SQLite tests itself: each failure is told as what it is, nothing is
// left behind, and the next edit equals the reference bit for bit. A sample here; all of them by `npm run test:faults`.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ByteSource } from '../../runtime/src/weights/byte-source.ts';
import type { ModelFiles } from '../../sdk/src/model/files.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { caughtGpu } from '../support/caught-gpu.ts';
import { pipelineModel } from '../support/pipeline-model.ts';

/** How the n-th call of a kind fails; `undefined` while nothing is to fail. */
interface Fault {
  at: number;
  calls: number;
}

const faults = { source: { at: 0, calls: 0 }, device: { at: 0, calls: 0 } };
const due = (fault: Fault) => ++fault.calls === fault.at;

/** The model on a disk whose n-th read fails. */
function failingFiles(): ModelFiles {
  const files = pipelineModel();
  const failing = (source: ByteSource): ByteSource => ({
    name: source.name,
    size: source.size,
    async read(start, end, signal) {
      if (due(faults.source)) throw new Error('EIO: i/o error, read');
      return source.read(start, end, signal);
    },
    close: () => source.close(),
  });
  return { ...files, open: async (name, signal) => await files.open(name, signal).then((s) => s && failing(s)) };
}

class GPUOutOfMemoryError {
  readonly message = 'no memory';
}

let kontext: Kontext;
let reference: Float32Array;
const size = { width: 64, height: 64 };
const image = { ...size, data: new Uint8ClampedArray(64 * 64 * 4).fill(120) };
const edit = async () => {
  const request = { image, prompt: 'grey', steps: 1, seed: 3, maxSequenceLength: 24, autoResize: false, size } as const;
  // Another picture object and prompt each time would be kept from the run before.
  const fresh = { ...image, data: image.data.slice() };
  const { latents } = await kontext.edit({ ...request, image: fresh, output: 'latents' });
  return latents[0]!;
};
const { gpu, device } = caughtGpu();

beforeAll(async () => {
  kontext = await Kontext.load(failingFiles(), { precision: 'f32', device: { gpu } });
  reference = await edit();
  const made = device()!;
  const pop = made.popErrorScope.bind(made);
  made.popErrorScope = async () => {
    const error = await pop();
    return due(faults.device) ? (new GPUOutOfMemoryError() as unknown as GPUError) : error;
  };
});
afterAll(() => kontext.close());

/** Calls of a kind in an edit that goes well. */
async function callsOf(fault: Fault): Promise<number> {
  Object.assign(fault, { at: 0, calls: 0 });
  expect(await edit()).toEqual(reference);
  return fault.calls;
}

/** All when asked for, else a few from the first to the last. */
function chosen(calls: number): number[] {
  const all = Array.from({ length: calls }, (_, i) => i + 1);
  if (process.env.KONTEXT_FAULTS) return all;
  return [...new Set([1, Math.ceil(calls / 2), calls])];
}

describe('a failure at the n-th call', () => {
  it.each([
    ['of a source', 'source', ['weights-invalid']],
    ['of the device', 'device', ['out-of-memory']],
  ] as const)('%s', { timeout: 7_200_000 }, async (_, kind, codes) => {
    const fault = faults[kind];
    const calls = await callsOf(fault);
    expect(calls).toBeGreaterThan(3);
    let injected = 0;
    for (const at of chosen(calls)) {
      Object.assign(fault, { at, calls: 0 });
      const error = await edit().then(
        () => undefined,
        (error: unknown) => error,
      );
      // What is kept between edits can make one shorter than the count.
      if (error !== undefined) {
        expect(codes).toContain((error as { code: string }).code);
        injected++;
      }
      Object.assign(fault, { at: 0, calls: 0 });
      expect(await edit()).toEqual(reference);
    }
    console.log(`${kind}: ${calls} calls, ${injected} failures told, ${injected} edits after them equal`);
    expect(injected).toBeGreaterThan(0);
  });
});
