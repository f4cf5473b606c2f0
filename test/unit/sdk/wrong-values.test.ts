// Every public function with every kind of wrong value in every place: whatever it throws or rejects with is a KontextError.
// Generated from the entry point, so a function that is new and not called here fails the test.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as sdk from '../../../sdk/src/node.ts';
import { ODD_VALUES } from '../../fuzz/mutate.ts';
import { pipelineModel } from '../../support/pipeline-model.ts';

const picture = { width: 16, height: 16, data: new Uint8ClampedArray(1024) };
const nowhere = join(tmpdir(), 'kontext-nowhere', 'x');

/** A way to call something with sound arguments; each argument, and each field of an object among them, is then replaced in turn. */
interface Callable {
  call: (...args: never[]) => unknown;
  args: readonly unknown[];
  /** Fields beyond those of the sound arguments. */
  fields?: readonly string[];
}

const functions: Record<string, Callable[]> = {
  decodeImage: [{ call: sdk.decodeImage, args: [picture, 'picture', undefined, 'opaque'], fields: ['data16'] }],
  encodeImage: [
    { call: sdk.encodeImage, args: [picture, 'png', { quality: 50, metadata: 'x' }], fields: ['data16', 'settings'] },
    {
      call: (settings: never) => sdk.encodeImage(picture, 'jpeg', { settings }),
      args: [{ prompt: 'x', seed: 1, width: 16, height: 16, steps: 2 }],
      fields: ['negativePrompt', 'sampler', 'schedule', 'model', 'references'],
    },
  ],
  readSettings: [{ call: sdk.readSettings, args: [new Uint8Array(9), undefined] }],
  saveImage: [{ call: sdk.saveImage, args: [`${nowhere}.png`, picture, { quality: 50, metadata: 'x' }] }],
  readPngText: [{ call: sdk.readPngText, args: [new Uint8Array(9), 'keyword'] }],
  demoModel: [{ call: sdk.demoModel, args: [] }],
  demoAdapter: [{ call: sdk.demoAdapter, args: [] }],
  demoPicture: [{ call: sdk.demoPicture, args: [] }],
  folderFiles: [{ call: (folder: string, name: string) => sdk.folderFiles(folder).open(name), args: [nowhere, 'x'] }],
  urlFiles: [{ call: (url: string) => sdk.urlFiles(url), args: ['http://127.0.0.1:9/'] }],
  KontextError: [{ call: () => new sdk.KontextError('closed', 'x'), args: [] }],
  load: [
    {
      // Without a GPU to find, so that sound arguments end here too.
      call: (source: never, options: object) => sdk.Kontext.load(source, options),
      args: [nowhere, { device: { gpu: { requestAdapter: async () => null } } }],
      fields: [
        'precision',
        'conditioning',
        'quantization',
        'memory',
        'device',
        'host',
        'programs',
        'previewDecoder',
        'signal',
      ],
    },
    {
      call: (source: never, options: object) => sdk.Kontext.load(source, options),
      args: [
        { transformer: nowhere, vae: nowhere, clip: nowhere, t5: nowhere, clipTokenizer: {}, t5Tokenizer: {} },
        { device: { backend: 'null' } },
      ],
      fields: ['defaults'],
    },
    {
      call: (source: never, options: object) => sdk.Kontext.load(source, options),
      args: [{ label: 'own', open: async () => undefined, list: async () => [] }, { device: { backend: 'null' } }],
    },
  ],
};

/** Each argument, and each field of an argument that is an object, replaced by each odd value. */
function* variants({ args, fields = [] }: Callable): Generator<unknown[]> {
  for (const [i, arg] of args.entries()) {
    for (const odd of ODD_VALUES) yield args.with(i, odd);
    if (typeof arg !== 'object' || arg === null || ArrayBuffer.isView(arg)) continue;
    for (const field of [...Object.keys(arg), ...fields]) {
      for (const odd of ODD_VALUES) yield args.with(i, { ...arg, [field]: odd });
    }
  }
}

const never = new Promise((_, reject) => setTimeout(reject, 240_000, new Error('did not settle')).unref());

/** What was thrown that is not ours, with the call that threw it. */
async function strangers(name: string, callable: Callable): Promise<string[]> {
  const found: string[] = [];
  for (const args of variants(callable)) {
    try {
      const answer = await Promise.race([(callable.call as (...a: unknown[]) => unknown)(...args), never]);
      await (answer as { close?: () => unknown } | undefined)?.close?.();
    } catch (error) {
      if (error instanceof sdk.KontextError && error.code !== 'internal') continue;
      const stack = error instanceof Error ? (error.cause instanceof Error ? error.cause.stack : error.stack) : '';
      found.push(`${name}(${args.map(shown).join(', ')}): ${String(stack ?? error).slice(0, 400)}`);
    }
  }
  return found.slice(0, 6);
}

function shown(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  if (ArrayBuffer.isView(value)) return value.constructor.name;
  return `{${Object.entries(value)
    .map(
      ([key, field]) => `${key}: ${typeof field === 'object' ? Object.prototype.toString.call(field) : String(field)}`,
    )
    .join(', ')}}`;
}

it('every function of the entry point is called below', () => {
  const exported = Object.entries(sdk).flatMap(([name, value]) => (typeof value === 'function' ? [name] : []));
  expect(exported.filter((name) => !(name in functions))).toEqual([]);
});

describe('functions', () => {
  for (const [name, callables] of Object.entries(functions)) {
    it(name, { timeout: 300_000 }, async () => {
      for (const callable of callables) expect(await strangers(name, callable)).toEqual([]);
    });
  }
});

describe('methods of a loaded model', () => {
  let kontext: sdk.Kontext;
  beforeAll(async () => {
    kontext = await sdk.Kontext.load(pipelineModel(), { device: { backend: 'null' }, precision: 'f32' });
  });
  afterAll(() => kontext.close());

  // Requests that are sound would run; one that is cancelled ends before it does.
  const cancelled = AbortSignal.abort();
  const request = { prompt: 'x', signal: cancelled, steps: 1 };
  const fields = Object.keys(sdk.REQUEST_OPTIONS).concat('preview', 'output', 'onProgress', 'image', 'unknown');
  const first = async (events: AsyncIterable<unknown>) => {
    for await (const _ of events) break;
  };
  const methods: Record<string, Callable> = {
    edit: { call: (r: never) => kontext.edit(r), args: [{ ...request, image: picture }], fields },
    generate: { call: (r: never) => kontext.generate(r), args: [request], fields },
    stream: { call: (r: never) => first(kontext.stream(r)), args: [{ ...request, image: picture }], fields },
    prepare: {
      call: (r: never) => kontext.prepare(r),
      args: [{ signal: cancelled, width: 64, height: 64, references: [], steps: 1, maxSequenceLength: 8 }],
      fields: ['onProgress', 'unknown'],
    },
    'session.edit': {
      call: (image: never, prompt: never, options: never) => kontext.session(image).edit(prompt, options),
      args: [picture, 'x', { signal: cancelled, steps: 1 }],
      fields,
    },
    'session.replay': {
      call: (options: never) => kontext.session(picture).replay(options),
      args: [{ signal: cancelled }],
    },
    'session.image': { call: (image: never) => kontext.session(image).image, args: [picture] },
  };
  for (const [name, callable] of Object.entries(methods)) {
    it(name, { timeout: 300_000 }, async () => {
      const wrong = { ...callable, call: callable.call };
      expect(await strangers(name, wrong)).toEqual([]);
    });
  }
});

it('a listener that throws or rejects does not end a request', async () => {
  const { ProgressTracker } = await import('../../../sdk/src/kontext/progress.ts');
  const told: unknown[] = [];
  const error = console.error;
  console.error = (...words) => told.push(words.at(-1));
  try {
    for (const listener of [
      () => {
        throw new Error('sync');
      },
      async () => {
        throw new Error('async');
      },
    ]) {
      new ProgressTracker(listener).send({ type: 'done' });
    }
    await new Promise(setImmediate);
  } finally {
    console.error = error;
  }
  expect(told).toMatchObject([{ message: 'sync' }, { message: 'async' }]);
});
