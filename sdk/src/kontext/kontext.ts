// The engine: a loaded model that edits and generates, one request at a time, in this process.
// It owns the device and gets over its loss; what differs between Node and a page comes in as a Platform.
import { KontextError } from '../../../runtime/src/errors.ts';
import { findAdapter, type OpenDeviceOptions } from '../../../runtime/src/gpu/open.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import { type HostOptions, loadHost } from '../host/module.ts';
import type { PixelDepth, PixelImage } from '../image/pixels.ts';
import type { FileInput } from '../model/files.ts';
import { type Model, type ModelSource, openModel, withPreviewDecoder } from '../model/open.ts';
import { type OpenedPrograms, openPrograms, type Programs } from '../programs/sources.ts';
import { deviceOptions } from './device-options.ts';
import { namesOf, refuseUnknown } from './known-options.ts';
import { patches } from './latents.ts';
import {
  type ChoiceOption,
  type Conditioning,
  LOAD_OPTIONS,
  type MemoryMode,
  type ModelDefaults,
  type Precision,
  type Quantization,
} from './options.ts';
import { Parts, type Work } from './parts.ts';
import { type PipelineContext, runPipeline } from './pipeline.ts';
import { ProgressTracker } from './progress.ts';
import { Queue } from './queue.ts';
import { ReferenceEncoder } from './references.ts';
import { type CheckedRequest, checkRequest } from './request.ts';
import { Session as EngineSession } from './session.ts';
import { chooseSizes } from './sizes.ts';
import { eventStream } from './stream.ts';
import { TextEncoders } from './text.ts';
import type {
  EditRequest,
  EditResult,
  GenerateRequest,
  ImageInput,
  KontextEngine,
  LatentsOnly,
  LatentsResult,
  PrepareRequest,
  ResolvedOptions,
  Session,
  StreamEvent,
} from './types.ts';

/** What an environment provides. */
export interface Platform {
  /**
   * @param role what the picture is for, named in errors
   * @param depth `own` keeps transparency and, where the platform can, 16 bits a channel; default `opaque`
   */
  decodeImage(input: ImageInput, role: string, signal?: AbortSignal, depth?: PixelDepth): Promise<PixelImage>;
}

/** Options of `Kontext.load`; defaults are in `LOAD_OPTIONS`. */
export interface LoadOptions {
  /** Arithmetic of the matmuls; default `auto`: f16 where the adapter has it. */
  precision?: Precision;
  /** Rounding of timesteps and guidance; default `auto`: `exact` in float32, else `bfloat16` as the published pipelines run. */
  conditioning?: Conditioning;
  /** Storage of the large matrices on the GPU; default `none`. `q8` and `q4` save memory, not time. */
  quantization?: Quantization;
  /**
   * Default `phased`: text encoders or transformer, never both. `resident` keeps every part loaded between edits; `streamed` loads the
   * transformer piece by piece in every step, slow but small.
   */
  memory?: MemoryMode;
  /** Which GPU, and how to open it. */
  device?: OpenDeviceOptions;
  /** Where the WASM module comes from, for pages with a strict content policy. */
  host?: HostOptions;
  /**
   * A bundle made by `kontext compile`: imported, or its folder or URL. Programs are compiled in this process when left out. A bundle runs
   * with the driver's bounds checks, unless it comes with the `publicKey` that signed it.
   */
  programs?: Programs;
  /**
   * A small decoder for sharp previews: a safetensors file of TAESD's kind for FLUX's latents (taef1). Without one, previews come from
   * a linear map fitted for the model's autoencoder, at 1/8 of the size.
   */
  previewDecoder?: FileInput;
  /** Cancels loading: it rejects with `aborted`. */
  signal?: AbortSignal;
}

/** {@link KontextEngine} in this process. Made by `Kontext.load`. */
export class Engine implements KontextEngine {
  readonly #queue = new Queue();
  readonly #text: TextEncoders;
  readonly #references: ReferenceEncoder;
  /** Absent after a loss, until the next request opens a device again. */
  #context: PipelineContext | undefined;

  private constructor(
    private readonly platform: Platform,
    private readonly model: Model,
    private readonly options: Required<Pick<LoadOptions, keyof typeof LOAD_OPTIONS>> & LoadOptions,
    private readonly host: Awaited<ReturnType<typeof loadHost>>,
    private readonly programs: OpenedPrograms,
    private readonly device: OpenDeviceOptions,
  ) {
    this.#text = new TextEncoders(host, model);
    this.#references = new ReferenceEncoder(host);
  }

  /**
   * Behind `Kontext.load`: opens model and device. Weights are loaded by the requests that need them, or by `prepare()`.
   *
   * @throws KontextError `webgpu-unavailable`, `weights-invalid`, `tokenizer-invalid`, `download-failed`, `feature-missing`,
   *   `invalid-request`; with a bundle also `program-mismatch`, `program-invalid`, `limit-too-small`
   * @internal
   */
  static async open(platform: Platform, source: ModelSource, options: LoadOptions = {}): Promise<Engine> {
    refuseUnknown(options, LOAD_KEYS, 'Kontext.load');
    refuseUnknown(options.device ?? {}, DEVICE_KEYS, 'device');
    refuseUnknown(options.host ?? {}, HOST_KEYS, 'host');
    const checked = { ...options, ...checkChoices(options) };
    const { signal, previewDecoder } = options;
    const programs = openPrograms(options.programs);
    const device = deviceOptions(options.device, programs.trusted);
    // Asked for before anything is fetched: without one, nothing of a model is of use. Not kept, because adapters expire.
    await findAdapter(device);
    let model = await openModel(source, signal);
    try {
      if (previewDecoder !== undefined) model = await withPreviewDecoder(model, previewDecoder, signal);
      const engine = new Engine(platform, model, checked, await loadHost(options.host), programs, device);
      await engine.#ready();
      return engine;
    } catch (error) {
      await model.close();
      throw error;
    }
  }

  /** What the GPU is and offers; undefined while a lost device has not been replaced. */
  get adapter(): AdapterReport | undefined {
    return this.#context?.parts.gpu.report;
  }

  /** What the model's `kontext.json` says about itself. */
  get defaults(): ModelDefaults {
    return this.model.defaults;
  }

  edit(request: EditRequest & LatentsOnly): Promise<LatentsResult>;
  edit(request: EditRequest): Promise<EditResult>;
  edit(request: EditRequest): Promise<EditResult> {
    if (typeof request === 'object' && request !== null && !('image' in request)) {
      return Promise.reject(new KontextError('invalid-request', 'edit() needs an image; generate() works without.'));
    }
    return this.#submit(request);
  }

  generate(request: GenerateRequest & LatentsOnly): Promise<LatentsResult>;
  generate(request: GenerateRequest): Promise<EditResult>;
  generate(request: GenerateRequest): Promise<EditResult> {
    if (typeof request === 'object' && request !== null && 'image' in request) {
      return Promise.reject(new KontextError('invalid-request', 'generate() takes no image; use edit().'));
    }
    return this.#submit(request);
  }

  stream(request: EditRequest | GenerateRequest): AsyncIterable<StreamEvent> {
    return eventStream(request, (observed) => this.#submit(observed));
  }

  session(image: ImageInput): Session {
    return new EngineSession(this, image, (input) => this.platform.decodeImage(input, 'picture of the session'));
  }

  prepare(request: PrepareRequest = {}): Promise<void> {
    const { signal, onProgress } = request;
    refuseUnknown(request, PREPARE_KEYS, 'prepare()');
    const tracker = new ProgressTracker(onProgress);
    return this.#queue.run(
      async (joined) => {
        const work: Work = { signal: joined, tracker, loadMs: 0 };
        await this.#guarded((context) => prepareShapes(context, request, work));
        tracker.send({ type: 'done' });
      },
      signal,
      (ahead) => tracker.send({ type: 'queued', ahead }),
    );
  }

  async close(): Promise<void> {
    if (this.#queue.closed.aborted) return;
    await this.#queue.close();
    this.#text.dispose();
    this.#context?.parts.gpu.destroy();
    this.#context = undefined;
    await this.model.close();
  }

  /** The same as {@link Engine.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #submit(request: EditRequest | GenerateRequest): Promise<EditResult> {
    const checked = checkRequest(request, this.model.defaults);
    const tracker = new ProgressTracker(request.onProgress);
    return this.#queue.run(
      (signal) => this.#process(checked, tracker, signal),
      request.signal,
      (ahead) => tracker.send({ type: 'queued', ahead }),
    );
  }

  async #process(request: CheckedRequest, tracker: ProgressTracker, signal: AbortSignal): Promise<EditResult> {
    const started = performance.now();
    const pictures: PixelImage[] = [];
    for (const [i, input] of request.references.entries()) {
      const role = i === 0 ? 'input image' : `reference image ${i}`;
      const depth = i === 0 && request.mask?.mode === 'exact' ? 'own' : 'opaque';
      pictures.push(await this.platform.decodeImage(input, role, signal, depth));
    }
    const maskPicture = request.mask && (await this.platform.decodeImage(request.mask.input, 'mask', signal));
    const work: Work = { signal, tracker, loadMs: 0 };
    return this.#guarded(async (context) => {
      const conditioning = this.#conditioning(context);
      const seen = { pictures, ...(maskPicture && { maskPicture }) };
      const result = await runPipeline(context, { ...request, conditioning, ...seen }, work);
      const { box, sizes } = result.scene;
      const { target, references } = sizes;
      tracker.send({ type: 'done' });
      return {
        image: result.images[0]!,
        images: result.images,
        latents: result.latents,
        seed: request.seed <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(request.seed) : request.seed,
        options: {
          ...target,
          prompt: request.prompt,
          ...(request.negativePrompt !== undefined && { negativePrompt: request.negativePrompt }),
          trueCfgScale: request.trueCfgScale,
          steps: request.steps,
          guidance: request.guidance,
          maxSequenceLength: request.maxSequenceLength,
          conditioning,
          precision: context.parts.precision,
          references,
          ...samplingOf(request),
          ...(request.strength < 1 && { strength: request.strength }),
          ...(request.mask && box && { mask: { mode: request.mask.mode, box } }),
        },
        evaluations: result.evaluations,
        truncated: result.truncated,
        timings: { ...result.timings, totalMs: performance.now() - started },
        memory: context.parts.memory,
      };
    });
  }

  /** Runs `task`; after the loss of the device everything on it is forgotten, and the next request starts anew. */
  async #guarded<T>(task: (context: PipelineContext) => Promise<T>): Promise<T> {
    const context = await this.#ready();
    try {
      return await task(context);
    } catch (error) {
      if (error instanceof KontextError && error.code === 'device-lost') this.#context = undefined;
      throw error;
    }
  }

  async #ready(): Promise<PipelineContext> {
    if (this.#context) return this.#context;
    const { precision, quantization, memory } = this.options;
    const { provider, trusted } = this.programs;
    // A bundle that does not fit is refused before there is a device.
    const specs = await provider.specs(this.model);
    if (this.model.previewDecoder && !specs.preview) {
      throw new KontextError(
        'invalid-request',
        'These programs have none for a previewDecoder. Leave out previewDecoder (previews then come from a fitted map) or programs.',
      );
    }
    const adapter = await findAdapter(this.device);
    await provider.target(adapter.report, precision);
    const gpu = await adapter.open();
    try {
      const parts = await Parts.create(gpu, this.model, provider, {
        precision,
        quantization,
        memory,
        foreign: !trusted,
      });
      this.#context = {
        host: this.host,
        model: this.model,
        parts,
        text: this.#text,
        references: this.#references,
      };
    } catch (error) {
      gpu.destroy();
      throw error;
    }
    // A loss between requests must not fail the next one.
    const context = this.#context;
    void gpu.lost.then(() => {
      if (this.#context === context) this.#context = undefined;
    });
    return context;
  }

  #conditioning({ parts }: PipelineContext): 'exact' | 'bfloat16' {
    const { conditioning } = this.options;
    if (conditioning !== 'auto') return conditioning;
    return parts.precision === 'f32' ? 'exact' : 'bfloat16';
  }
}

/** What differs from how the model is published; with it all, the same picture can be made again. */
function samplingOf(request: CheckedRequest): Partial<ResolvedOptions> {
  const { sampler, eta, schedule, sigmas, referencePositions, stitch, references } = request;
  return {
    ...(sampler !== 'euler' && { sampler }),
    ...(sampler === 'euler_ancestral' && { eta }),
    ...(schedule !== 'model' && { schedule }),
    ...(sigmas && { sigmas: [...sigmas] }),
    ...(references.length > 1 && referencePositions !== 'offset' && { referencePositions }),
    ...(references.length > 1 &&
      referencePositions === 'stitched' && { stitchDirection: stitch.direction, stitchSpacing: stitch.spacing }),
  };
}

/** Binds what the memory mode will keep: the transformer, and with `resident` everything. */
async function prepareShapes({ model, parts }: PipelineContext, request: PrepareRequest, work: Work): Promise<void> {
  const { maxSequenceLength, steps } = checkRequest(
    {
      prompt: 'prepare',
      ...(request.steps !== undefined && { steps: request.steps }),
      ...(request.maxSequenceLength !== undefined && { maxSequenceLength: request.maxSequenceLength }),
    },
    model.defaults,
  );
  const wanted = request.width !== undefined && request.height !== undefined;
  const size = wanted ? { width: request.width!, height: request.height! } : ('auto' as const);
  checkRequest({ prompt: 'prepare', size });
  const { target } = chooseSizes({ size, maxArea: undefined, autoResize: true }, [], model.defaults);
  const references = request.references ?? [target];
  const image = patches(target);
  await parts.bind(
    { component: 'denoise', textTokens: maxSequenceLength, image, references: references.map(patches) },
    work,
  );
  if (parts.options.memory !== 'resident') return;
  await parts.bind({ component: 'clip', tokens: 77 }, work);
  await parts.bind({ component: 't5', tokens: maxSequenceLength }, work);
  await parts.bind({ component: 'modulation', steps }, work);
  for (const reference of references) await parts.bind({ component: 'vae-encode', ...reference }, work);
  await parts.bind({ component: 'vae-decode', ...target }, work);
}

const LOAD_KEYS = namesOf<LoadOptions>({
  precision: true,
  conditioning: true,
  quantization: true,
  memory: true,
  device: true,
  host: true,
  programs: true,
  previewDecoder: true,
  signal: true,
});
const DEVICE_KEYS = namesOf<OpenDeviceOptions>({
  adapter: true,
  powerPreference: true,
  backend: true,
  unchecked: true,
  dawnToggles: true,
  hangMs: true,
  gpu: true,
});
const HOST_KEYS = namesOf<HostOptions>({ wasm: true, wasmUrl: true });
const PREPARE_KEYS = namesOf<PrepareRequest>({
  width: true,
  height: true,
  references: true,
  steps: true,
  maxSequenceLength: true,
  signal: true,
  onProgress: true,
});

type Choices = { [K in keyof typeof LOAD_OPTIONS]: (typeof LOAD_OPTIONS)[K]['choices'][number] };

function checkChoices(options: LoadOptions): Choices {
  const chosen = Object.entries(LOAD_OPTIONS).map(([name, option]: [string, ChoiceOption]) => {
    const value = options[name as keyof Choices] ?? option.default;
    if (option.choices.includes(value)) return [name, value];
    const known = option.choices.map((choice) => `"${choice}"`).join(', ');
    throw new KontextError('invalid-request', `${name} is ${JSON.stringify(value)}; it must be one of ${known}.`);
  });
  return Object.fromEntries(chosen) as Choices;
}
