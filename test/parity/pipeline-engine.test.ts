// The engine as apps use it, on the reference's tiny model: queueing, cancelling, closing, losing the device, memory.
// Every picture made after something went wrong must equal the one made before.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { create } from 'webgpu';
import { decodeImage } from '../../sdk/src/image/node.ts';
import type { EditRequest, EditResult, ProgressEvent } from '../../sdk/src/kontext/types.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { pipelineFile, pipelineModel } from '../support/pipeline-model.ts';

const TIMEOUT = 600_000;

// The device is caught where it is made, so that a test can destroy it as a driver would.
const dawn = create([]);
let device: GPUDevice | undefined;
const catching = {
  requestAdapter: async (options?: GPURequestAdapterOptions) => {
    const adapter = await dawn.requestAdapter(options);
    if (!adapter) return null;
    const requestDevice = adapter.requestDevice.bind(adapter);
    adapter.requestDevice = async (descriptor) => {
      device = await requestDevice(descriptor);
      return device;
    };
    return adapter;
  },
} as GPU;

const request = {
  image: pipelineFile('input_1.png'),
  prompt: 'Replace the red car with a blue bicycle.',
  steps: 2,
  maxSequenceLength: 24,
  size: { width: 96, height: 64 },
  autoResize: false,
  seed: 42,
} satisfies EditRequest;

let kontext: Kontext;
let first: EditResult;
beforeAll(async () => {
  kontext = await Kontext.load(pipelineModel(), { precision: 'f32', device: { gpu: catching } });
  first = await kontext.edit(request);
}, TIMEOUT);
afterAll(() => kontext.close());

describe('Kontext', { timeout: TIMEOUT }, () => {
  it('tells what it did', () => {
    expect(first.seed).toBe(42);
    expect(first.options).toEqual({
      prompt: request.prompt,
      width: 96,
      height: 64,
      steps: 2,
      guidance: 2.5,
      trueCfgScale: 1,
      maxSequenceLength: 24,
      conditioning: 'exact',
      precision: 'f32',
      references: [{ width: 96, height: 64 }],
    });
    expect(first.latents[0]!.length).toBe(24 * 64);
    expect(first.truncated).toBe(false);
    const { totalMs, ...stages } = first.timings;
    expect(Object.values(stages).reduce((sum, ms) => sum + ms, 0)).toBeLessThanOrEqual(totalMs);
    expect(first.memory.peakBytes).toBeGreaterThanOrEqual(first.memory.weightBytes);
  });

  it('sends typed events whose progress never falls', async () => {
    const events: ProgressEvent[] = [];
    await kontext.edit({ ...request, prompt: 'a new prompt', onProgress: (event) => events.push(event) });
    const stages = events.flatMap((event) => (event.type === 'stage' ? [event.stage] : []));
    expect(stages).toEqual(['encode-image', 'encode-text', 'modulation', 'denoise', 'decode']);
    const shares = events.map(({ progress }) => progress);
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    const steps = events.filter((event) => event.type === 'step');
    expect(steps).toMatchObject([
      { step: 1, steps: 2, image: 0 },
      { step: 2, steps: 2, image: 0 },
    ]);
    expect(steps[0]!.remainingMs).toBeGreaterThan(0);
    expect(events.at(-1)).toEqual({ type: 'done', progress: 1, remainingMs: 0 });
  });

  it('queues two edits started at once, and both are right', async () => {
    const ahead: number[] = [];
    const other = { ...request, seed: 43 };
    const [a, b] = await Promise.all([
      kontext.edit(request),
      kontext.edit({ ...other, onProgress: (event) => event.type === 'queued' && ahead.push(event.ahead) }),
    ]);
    expect(ahead).toEqual([1]);
    expect(a.image).toEqual(first.image);
    expect(b.image).not.toEqual(first.image);
    expect((await kontext.edit(other)).image).toEqual(b.image);
  });

  it.each(['encode-image', 'encode-text', 'modulation', 'denoise', 'step', 'load', 'compile', 'decode'])(
    'stops at %s when cancelled, and edits rightly afterwards',
    async (where) => {
      const controller = new AbortController();
      const onProgress = (event: ProgressEvent) => {
        if (event.type === where || (event.type === 'stage' && event.stage === where)) controller.abort();
      };
      // A new picture object and prompt, so that no cache skips the stage.
      const image = await decodeImage(request.image, 'input');
      const cancelled = kontext.edit({ ...request, image, prompt: where, signal: controller.signal, onProgress });
      await expect(cancelled).rejects.toMatchObject({ code: 'aborted' });
      expect(controller.signal.aborted).toBe(true);
      expect((await kontext.edit(request)).image).toEqual(first.image);
    },
  );

  it('makes several pictures that are each the one of its seed', async () => {
    const { images, latents } = await kontext.edit({ ...request, images: 2 });
    expect(images[0]).toEqual(first.image);
    expect(images[1]).toEqual((await kontext.edit({ ...request, seed: 43 })).image);
    const only = await kontext.edit({ ...request, images: 2, output: 'latents' });
    expect(only.latents).toEqual(latents);
    await expect(kontext.edit({ ...request, latents: new Float32Array(64) })).rejects.toThrow(/64 values.*are 1536/);
  });

  it('edits with several references of different sizes, and they matter', async () => {
    const both = { ...request, references: [pipelineFile('input_2.png')] };
    const a = await kontext.edit(both);
    expect(a.options.references).toHaveLength(2);
    expect(a.image).not.toEqual(first.image);
    expect((await kontext.edit(both)).image).toEqual(a.image);
  });

  it('replays a session to the same pictures, branches and masks too, and one that was imported', async () => {
    const { image, prompt: _, seed: __, ...options } = request;
    const session = kontext.session(image);
    await session.edit('one', options);
    await session.edit('two', { ...options, steps: 1 });
    session.undo();
    const { width, height } = await session.image;
    const left = (at: number) => at % (4 * width) < 2 * width;
    const data = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => (left(i) || i % 4 === 3 ? 255 : 0));
    await session.edit('three', { ...options, steps: 1, mask: { width, height, data }, sampler: 'heun' });
    const imported = await session.import(await session.export('png'));
    for (const again of [await session.replay(), await imported.replay()]) {
      expect(again.turns.map((turn) => turn.image)).toEqual(session.turns.map((turn) => turn.image));
      expect([again.position, again.turns.map(({ parent }) => parent)]).toEqual([3, [0, 1, 1]]);
    }
  });

  it('keeps memory flat', async () => {
    const use: number[] = [];
    for (let i = 0; i < 4; i++) {
      const { memory } = await kontext.edit({ ...request, prompt: `prompt ${i}`, steps: 1 });
      use.push(memory.weightBytes + memory.activationBytes);
    }
    expect(new Set(use.slice(1)).size).toBe(1);
  });

  it('has prepared what it then need not compile', async () => {
    const size = { width: 64, height: 96 };
    await kontext.prepare({ ...size, references: [{ width: 96, height: 64 }], steps: 2, maxSequenceLength: 24 });
    const compiled = new Set<string>();
    const onProgress = (event: ProgressEvent) => event.type === 'compile' && compiled.add(event.component);
    await kontext.edit({ ...request, size, onProgress });
    expect(compiled.has('denoise')).toBe(false);
    expect(compiled.has('vae-decode')).toBe(true);
  });

  it('rejects with device-lost, and recovers by itself', async () => {
    const onProgress = (event: ProgressEvent) => {
      if (event.type === 'step') device!.destroy();
    };
    await expect(kontext.edit({ ...request, onProgress })).rejects.toMatchObject({ code: 'device-lost' });
    expect((await kontext.edit(request)).image).toEqual(first.image);
  });

  it('cancels what runs when closed, and says so afterwards', async () => {
    const running = kontext.edit({ ...request, prompt: 'interrupted' });
    const waiting = kontext.generate({ prompt: 'x', size: request.size });
    const outcomes = Promise.allSettled([running, waiting]);
    await kontext.close();
    for (const outcome of await outcomes) expect(outcome).toMatchObject({ reason: { code: 'closed' } });
    await expect(kontext.edit(request)).rejects.toThrow(/Load it again/);
    await kontext.close();
  });
});
