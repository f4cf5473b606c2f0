// An engine that paints one colour and takes as long as it is told: for tests of everything around the model.
import { abortedError, KontextError } from '../../../runtime/src/errors.ts';
import { decodeImage } from '../../../sdk/src/image/node.ts';
import type { PixelImage } from '../../../sdk/src/image/pixels.ts';
import { checkRequest } from '../../../sdk/src/kontext/request.ts';
import { Session } from '../../../sdk/src/kontext/session.ts';
import { eventStream } from '../../../sdk/src/kontext/stream.ts';
import type { EditRequest, EditResult, GenerateRequest, KontextEngine } from '../../../sdk/src/kontext/types.ts';

export interface FakeOptions {
  /** Milliseconds a step. */
  stepMs?: number;
  /** Pictures of 16×16 whatever was asked for: for those who only count. */
  tiny?: boolean;
  /** Called at the start of each request; may throw. */
  onRequest?: (request: EditRequest | GenerateRequest) => void;
}

export function fakeEngine({ stepMs = 0, tiny = false, onRequest }: FakeOptions = {}): KontextEngine {
  async function run(request: EditRequest | GenerateRequest): Promise<EditResult> {
    onRequest?.(request);
    const { steps, images, seed, size, prompt, maxSequenceLength, guidance } = checkRequest(request);
    const { width, height } = tiny
      ? { width: 16, height: 16 }
      : typeof size === 'object'
        ? size
        : { width: 64, height: 64 };
    request.onProgress?.({ type: 'stage', stage: 'denoise', progress: 0 });
    for (let step = 1; step <= steps; step++) {
      await pause(stepMs, request.signal);
      request.onProgress?.({ type: 'step', image: 0, step, steps, stepMs, progress: step / steps });
      if (request.preview && step % request.preview.every === 0 && step < steps) {
        request.onProgress?.({
          type: 'preview',
          image: 0,
          step,
          preview: plain(width / 8, height / 8, step),
          progress: step / steps,
        });
      }
    }
    const made = Array.from({ length: images }, (_, i) => plain(width, height, Number((seed + BigInt(i)) % 256n)));
    const references = 'image' in request ? [{ width, height }] : [];
    return {
      image: made[0]!,
      images: made,
      latents: [],
      seed: Number(seed),
      seeds: made.map((_, i) => Number(seed) + i),
      options: {
        prompt,
        width,
        height,
        steps,
        guidance,
        maxSequenceLength,
        references,
        trueCfgScale: 1,
        conditioning: 'exact',
        precision: 'f32',
      } as EditResult['options'],
      truncated: false,
      evaluations: steps * images,
      timings: { encodeImageMs: 0, encodeTextMs: 0, modulationMs: 0, denoiseMs: 0, decodeMs: 0, loadMs: 0, totalMs: 1 },
      memory: { weightBytes: 0, adapterBytes: 0, activationBytes: 0, peakBytes: 0 },
    };
  }
  const engine: KontextEngine = {
    edit: run as KontextEngine['edit'],
    generate: run as KontextEngine['generate'],
    stream: (request) => eventStream(request, run),
    session: (image) => new Session({ edit: run }, image, (input) => decodeImage(input, 'picture')),
    prepare: async () => {},
    close: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
  return engine;
}

/** A picture of one grey. */
export function plain(width: number, height: number, grey: number): PixelImage {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < data.length; i += 4) data.set([grey, grey, grey, 255], i);
  return { width, height, data };
}

export const deviceLost = () => new KontextError('device-lost', 'The GPU went away.');

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) return Promise.reject(abortedError(signal));
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(abortedError(signal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}
