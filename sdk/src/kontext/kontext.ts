// The engine: a loaded model that edits and generates, one request at a time, in this process.
// It owns the device and gets over its loss; what differs between Node and a page comes in as a Platform.
import { asKontextError, KontextError, shown } from '../../../runtime/src/errors.ts';
import { findAdapter, type OpenDeviceOptions } from '../../../runtime/src/gpu/open.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import type { AccessPolicy } from '../../../runtime/src/net/access.ts';
import { type HostOptions, loadHost } from '../host/module.ts';
import type { HubOptions } from '../hub/repository.ts';
import type { DownloadProgress } from '../hub/transfer.ts';
import type { PixelDepth, PixelImage } from '../image/pixels.ts';
import type { FileInput } from '../model/files.ts';
import { checkQuantisable } from '../model/formats.ts';
import { type Model, type ModelSource, openModel, withPreviewDecoder } from '../model/open.ts';
import { resolveFile, resolveSource } from '../model/resolve.ts';
import { type OpenedPrograms, openPrograms, type Programs } from '../programs/sources.ts';
import type { BackgroundTuner } from '../tune/background.ts';
import type { TuningProfile } from '../tune/profile.ts';
import { checkAdapters } from './adapters/check.ts';
import type { AdapterShelf, ChosenAdapters } from './adapters/shelf.ts';
import { budgetBytes, fitting, type Setting } from './budget.ts';
import { chooseSetting, describe, leavesChoice, plannedRequest } from './choose-setting.ts';
import type { Rounding } from './conditioning.ts';
import { deviceOptions } from './device-options.ts';
import { checkFamily, FAMILY_DEFAULTS, type Family, familyOf, seesContext } from './family.ts';
import { namesOf, refuseUnknown } from './known-options.ts';
import { patches } from './latents.ts';
import {
  type ChoiceOption,
  type Conditioning,
  LOAD_OPTIONS,
  type MemoryBudget,
  type MemoryMode,
  type ModelDefaults,
  type Precision,
  type Quantization,
  type Tune,
} from './options.ts';
import { Parts, type Work } from './parts.ts';
import { type PipelineContext, runPipeline } from './pipeline.ts';
import type { ModelPlan, SettingPlan } from './plan.ts';
import { ProgressTracker } from './progress.ts';
import { Queue } from './queue.ts';
import { ReferenceEncoder } from './references.ts';
import { type CheckedRequest, checkRequest } from './request.ts';
import { Session as EngineSession } from './session.ts';
import { checkSignal } from './signal.ts';
import { chooseSizes } from './sizes.ts';
import { eventStream } from './stream.ts';
import { TextEncoders } from './text.ts';
import type {
  AdapterOptions,
  EditRequest,
  EditResult,
  GenerateRequest,
  ImageInput,
  ImageSize,
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
   * @param access which hosts may be asked for it; default all
   */
  decodeImage(
    input: ImageInput,
    role: string,
    signal?: AbortSignal,
    depth?: PixelDepth,
    access?: AccessPolicy,
  ): Promise<PixelImage>;
}

/** Options of `Kontext.load`; defaults are in `LOAD_OPTIONS`. */
export interface LoadOptions {
  /** Arithmetic of the matmuls; default `auto`: f16 where the adapter has it. */
  precision?: Precision;
  /**
   * Rounding of timesteps and guidance. `diffusers` and `bfl` are what the two published pipelines do in bfloat16; they agree on the
   * guidance and differ in 7 of 28 timesteps at 1024². Default `auto`: `exact` in float32, else `diffusers`, since sizes, schedule
   * and seeds follow that pipeline too.
   */
  conditioning?: Conditioning;
  /**
   * Storage of the large matrices on the GPU; default `auto`: as the file has them, without loss, where floats take the arithmetic's
   * precision. `none` takes that for all; `q8` and `q4` save memory, not time.
   */
  quantization?: Quantization;
  /**
   * Default `phased`: text encoders or transformer, never both. `resident` keeps every part loaded between edits; `streamed` loads the
   * transformer piece by piece in every step, slow but small.
   */
  memory?: MemoryMode | MemoryBudget;
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
   * What `kontext tune` measured on this adapter: the file's path or URL, or its parsed content. Programs compiled in this process then
   * get the schedules that were fastest. Bundles have theirs by `kontext compile --profile`.
   */
  profile?: string | URL | TuningProfile;
  /**
   * `background` measures schedules for the shapes in use while the engine is idle, on a device of its own, and keeps what was fastest by
   * adapter and driver: it is used from the next load on. A request that comes meanwhile waits for one measurement at most. Default `off`.
   */
  tune?: Tune;
  /**
   * A small decoder for sharp previews: a safetensors file of TAESD's kind for FLUX's latents (taef1). Without one, previews come from
   * a linear map fitted for the model's autoencoder, at 1/8 of the size.
   */
  previewDecoder?: FileInput;
  /** Adapters (LoRA and its relatives) of every request that does not name its own; each needs a `source`. */
  adapters?: readonly AdapterOptions[];
  /**
   * Adds `adapters` to the weights while they load, for good: no cost in any step, but no other strength either, and quantised weights
   * are quantised again with them. Default false.
   */
  merge?: boolean;
  /** For models on the Hugging Face hub (`hf:owner/name`): token, mirror, folder for downloads. */
  hub?: HubOptions;
  /**
   * Which hosts may be asked for the model and for pictures of requests, redirects included. Servers that fetch pictures which
   * their users name set `{ privateAddresses: 'refuse' }`. Default: all.
   */
  access?: AccessPolicy;
  /** Told of downloads from the hub, over all files: bytes, rate, time left. */
  onDownload?: (event: DownloadProgress) => void;
  /** Cancels loading: it rejects with `aborted`. */
  signal?: AbortSignal;
}

/** What to plan for: options of the load to come, and the request; defaults are the model's. */
export interface PlanOptions
  extends Pick<
    LoadOptions,
    | 'precision'
    | 'quantization'
    | 'memory'
    | 'device'
    | 'programs'
    | 'adapters'
    | 'merge'
    | 'hub'
    | 'access'
    | 'onDownload'
    | 'signal'
  > {
  /** Of the picture. */
  size?: ImageSize;
  /** Of the references; default one of the picture's size. */
  references?: readonly ImageSize[];
  /** Denoising steps. */
  steps?: number;
  /** T5 tokens. */
  maxSequenceLength?: number;
}

/** What a model will need, and with a budget the choice that fits it best. */
export interface KontextPlan extends ModelPlan {
  /** With an amount of `memory`: what `Kontext.load` would take. */
  chosen?: SettingPlan;
}

/** {@link KontextEngine} in this process. Made by `Kontext.load`. */
export class Engine implements KontextEngine {
  readonly #queue = new Queue();
  readonly #text: TextEncoders;
  readonly #references: ReferenceEncoder;
  /** Made for the first adapter. */
  #shelf: Promise<AdapterShelf> | undefined;
  readonly #family: Family;
  #closing: Promise<void> | undefined;
  /** Absent after a loss, until the next request opens a device again. */
  #context: PipelineContext | undefined;

  private constructor(
    private readonly platform: Platform,
    private readonly model: Model,
    private readonly options: Choices & LoadOptions,
    private readonly host: Awaited<ReturnType<typeof loadHost>>,
    private readonly programs: OpenedPrograms & { tuner?: BackgroundTuner },
    private readonly device: OpenDeviceOptions,
    text: TextEncoders,
  ) {
    this.#text = text;
    this.#references = new ReferenceEncoder(host);
    this.#family = familyOf(model);
  }

  /**
   * Behind `Kontext.load`: opens model and device. Weights are loaded by the requests that need them, or by `prepare()`.
   *
   * @throws KontextError `webgpu-unavailable`, `weights-invalid`, `tokenizer-invalid`, `download-failed`, `feature-missing`,
   *   `invalid-request`; with a bundle also `program-mismatch`, `program-invalid`, `limit-too-small`
   * @internal
   */
  static open(platform: Platform, source: ModelSource, options: LoadOptions = {}): Promise<Engine> {
    return told(() => Engine.#open(platform, source, options));
  }

  static async #open(platform: Platform, source: ModelSource, given: LoadOptions): Promise<Engine> {
    // The signal ends with the load: what the engine keeps must not listen to it.
    const { signal, ...options } = given ?? {};
    refuseUnknown(given, LOAD_KEYS, 'Kontext.load');
    checkSignal(signal);
    refuseUnknown(options.device ?? {}, DEVICE_KEYS, 'device');
    refuseUnknown(options.host ?? {}, HOST_KEYS, 'host');
    const checked = { ...options, ...checkChoices(options) };
    const { previewDecoder } = options;
    const opened = openPrograms(options.programs);
    const device = deviceOptions(options.device, opened.trusted);
    const programs = await withSchedules(opened, checked, device, signal);
    // Asked for before anything is fetched: without one, nothing of a model is of use. Not kept, because adapters expire.
    await findAdapter(device);
    const { hub, access, onDownload } = options;
    const place = { ...hub, signal, access, onProgress: onDownload };
    let model = await openModel(await resolveSource(source, place), signal);
    try {
      if (previewDecoder !== undefined) {
        model = await withPreviewDecoder(model, await resolveFile(previewDecoder, place), signal);
      }
      checkPacked(model, options);
      const host = await loadHost(options.host ?? undefined);
      const text = await TextEncoders.create(host, model);
      const engine = new Engine(platform, model, checked, host, programs, device, text);
      refuseMergeOfNothing(options);
      if (checkAdapters(options.adapters, 'Kontext.load').length > 0) await (await engine.#adapters()).ready(signal);
      await engine.#ready();
      return engine;
    } catch (error) {
      await model.close();
      throw error;
    }
  }

  /**
   * Behind `Kontext.plan`.
   *
   * @internal
   */
  static async plan(source: ModelSource, options: PlanOptions = {}): Promise<KontextPlan> {
    refuseUnknown(options, PLAN_KEYS, 'Kontext.plan');
    refuseMergeOfNothing(options);
    const { precision, quantization } = checkChoices(options);
    const { hub, access, onDownload, signal } = options;
    const { provider, trusted } = openPrograms(options.programs);
    const adapter = await findAdapter(deviceOptions(options.device, trusted));
    const model = await openModel(
      await resolveSource(source, { ...hub, signal, access, onProgress: onDownload }),
      signal,
    );
    let shelf: AdapterShelf | undefined;
    try {
      checkPacked(model, options);
      const request = plannedRequest(model, options);
      const { planModel } = await import('./plan.ts');
      if (options.adapters?.length) shelf = await openShelf(model, options);
      const adapters = await shelf?.planned(signal);
      const context = { model, provider, device: adapter.report, precision, adapters };
      const plan = await planModel(context, request, quantization, leavesChoice(model, quantization));
      const budget = budgetBytes(options.memory);
      return budget === undefined ? plan : { ...plan, chosen: fitting(plan.choices, budget, describe(model, request)) };
    } finally {
      await shelf?.close();
      await model.close();
    }
  }

  /** How memory is used and matrices are stored: as asked for, or as chosen for a budget; undefined while a lost device is not replaced. */
  get setting(): Setting | undefined {
    const options = this.#context?.parts.options;
    return options && { memory: options.memory, quantization: options.quantization };
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
    return new EngineSession(this, image, (input) =>
      this.platform.decodeImage(input, 'picture of the session', undefined, 'opaque', this.options.access),
    );
  }

  async prepare(request: PrepareRequest = {}): Promise<void> {
    refuseUnknown(request, PREPARE_KEYS, 'prepare()');
    const { signal, onProgress } = request;
    checkSignal(signal);
    const tracker = new ProgressTracker(onProgress);
    return this.#queue.run(
      async (joined) => {
        const work: Work = { signal: joined, tracker, loadMs: 0 };
        const chosen = await this.#choose(undefined, joined);
        await this.#guarded(async (context) => {
          await this.#useAdapters(context, chosen, joined);
          await prepareShapes(context, request, work);
        });
        tracker.send({ type: 'done' });
      },
      signal,
      (ahead) => tracker.send({ type: 'queued', ahead }),
    );
  }

  close(): Promise<void> {
    this.#closing ??= told(() => this.#close());
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#queue.close();
    await this.programs.tuner?.close();
    this.#text.dispose();
    this.#context?.parts.gpu.destroy();
    this.#context = undefined;
    await (await this.#shelf)?.close();
    await this.model.close();
  }

  /** The same as {@link Engine.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #submit(request: EditRequest | GenerateRequest): Promise<EditResult> {
    return told(() => this.#queued(request));
  }

  async #queued(request: EditRequest | GenerateRequest): Promise<EditResult> {
    const checked = checkRequest(request, { ...FAMILY_DEFAULTS[this.#family], ...this.model.defaults });
    checkFamily(this.#family, checked);
    const tracker = new ProgressTracker(request.onProgress);
    return this.#queue.run(
      (signal) => this.#process(request, checked, tracker, signal),
      request.signal,
      (ahead) => tracker.send({ type: 'queued', ahead }),
    );
  }

  async #process(
    given: EditRequest | GenerateRequest,
    checked: CheckedRequest,
    tracker: ProgressTracker,
    signal: AbortSignal,
  ): Promise<EditResult> {
    const started = performance.now();
    const { access } = this.options;
    const chosen = await this.#choose(checked.adapters, signal);
    // What adapters want is a default like the model's; a seed is drawn once.
    const request = chosen
      ? {
          ...checkRequest(given, { ...FAMILY_DEFAULTS[this.#family], ...this.model.defaults, ...chosen.settings }),
          seed: checked.seed,
        }
      : checked;
    const pictures: PixelImage[] = [];
    for (const [i, input] of request.references.entries()) {
      const role = i === 0 ? 'input image' : `reference image ${i}`;
      const depth = i === 0 && request.mask?.mode === 'exact' ? 'own' : 'opaque';
      pictures.push(await this.platform.decodeImage(input, role, signal, depth, access));
    }
    const controlPicture =
      request.control &&
      (await this.platform.decodeImage(request.control, 'control picture', signal, 'opaque', access));
    const maskPicture =
      request.mask?.input && (await this.platform.decodeImage(request.mask.input, 'mask', signal, 'opaque', access));
    const work: Work = { signal, tracker, loadMs: 0 };
    return this.#guarded(async (context) => {
      const conditioning = this.#conditioning(context);
      await this.#useAdapters(context, chosen, signal);
      const seen = { pictures, ...(maskPicture && { maskPicture }), ...(controlPicture && { controlPicture }) };
      const result = await runPipeline(context, { ...request, conditioning, ...seen }, work);
      const { box, sizes } = result.scene;
      const { target, references } = sizes;
      tracker.send({ type: 'done' });
      return {
        image: result.images[0]!,
        images: result.images,
        latents: result.latents,
        seed: seedOf(request.seed + BigInt(result.chosen)),
        options: {
          ...target,
          prompt: request.prompt,
          ...(request.negativePrompt !== undefined && { negativePrompt: request.negativePrompt }),
          trueCfgScale: request.trueCfgScale,
          ...guidanceOf(request),
          steps: request.steps,
          guidance: request.guidance,
          maxSequenceLength: request.maxSequenceLength,
          conditioning,
          precision: context.parts.precision,
          references,
          ...samplingOf(request),
          ...(chosen && chosen.used.length > 0 && { adapters: chosen.used }),
          ...(request.strength < 1 && { strength: request.strength }),
          ...(request.mask && box && { mask: { mode: request.mask.mode, box } }),
        },
        evaluations: result.evaluations,
        ...(request.cache && { skipped: result.skipped }),
        truncated: result.truncated,
        timings: { ...result.timings, totalMs: performance.now() - started },
        memory: context.parts.memory,
      };
    });
  }

  /** Undefined when no adapter was ever used. */
  async #choose(adapters: CheckedRequest['adapters'], signal: AbortSignal): Promise<ChosenAdapters | undefined> {
    const none = adapters ? adapters.length === 0 : !this.options.adapters?.length;
    if (none && !this.#shelf) return undefined;
    return (await this.#adapters()).choose(adapters, signal);
  }

  async #useAdapters(context: PipelineContext, chosen: ChosenAdapters | undefined, signal: AbortSignal): Promise<void> {
    if (!chosen) return;
    const [{ AdapterBindings }, always] = [
      await import('./adapters/bindings.ts'),
      await (await this.#adapters()).merged(signal),
    ];
    const make = (stores: ConstructorParameters<typeof AdapterBindings>[0]) => new AdapterBindings(stores);
    context.text.variant = await context.parts.useAdapters(make, chosen.plans, always);
  }

  #adapters(): Promise<AdapterShelf> {
    this.#shelf ??= openShelf(this.model, this.options);
    return this.#shelf;
  }

  /** Runs `task`; after the loss of the device everything on it is forgotten, and the next request starts anew. */
  async #guarded<T>(task: (context: PipelineContext) => Promise<T>): Promise<T> {
    const ended = this.programs.tuner?.begin();
    try {
      return await task(await this.#ready());
    } catch (error) {
      if (error instanceof KontextError && error.code === 'device-lost') this.#context = undefined;
      throw error;
    } finally {
      ended?.();
    }
  }

  async #ready(): Promise<PipelineContext> {
    if (this.#context) return this.#context;
    const { precision } = this.options;
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
    // An amount of memory is for what every request has, adapters of the load included.
    const counts = budgetBytes(this.options.memory) !== undefined && this.options.adapters?.length;
    const adapters = counts ? await (await this.#adapters()).planned() : undefined;
    const setting = await chooseSetting(
      { model: this.model, provider, device: adapter.report, precision, adapters },
      this.options,
    );
    const gpu = await adapter.open();
    try {
      const parts = await Parts.create(gpu, this.model, provider, {
        precision,
        ...setting,
        foreign: !trusted,
      });
      this.#context = {
        host: this.host,
        model: this.model,
        parts,
        text: this.#text,
        references: this.#references,
        family: this.#family,
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

  #conditioning({ parts }: PipelineContext): Rounding {
    const { conditioning } = this.options;
    if (conditioning !== 'auto') return conditioning;
    return parts.precision === 'f32' ? 'exact' : 'diffusers';
  }
}

/** Programs with measured schedules; what reads or finds those is loaded by who wants it. */
async function withSchedules(
  programs: OpenedPrograms,
  { profile, tune, programs: given, access }: LoadOptions,
  device: OpenDeviceOptions,
  signal: AbortSignal | undefined,
): Promise<OpenedPrograms & { tuner?: BackgroundTuner }> {
  if (profile === undefined && tune !== 'background') return programs;
  const option = profile === undefined ? 'tune' : 'profile';
  if (given !== undefined) {
    throw new KontextError(
      'invalid-request',
      `${option} is for programs compiled in this process: give a profile to kontext compile --profile instead, or leave programs out.`,
      { option },
    );
  }
  if (profile === undefined) {
    const { BackgroundTuner } = await import('../tune/background.ts');
    const tuner = await BackgroundTuner.create(device);
    return { ...programs, provider: tuner.programs(programs.provider), tuner };
  }
  if (tune === 'background') {
    throw new KontextError('invalid-request', 'Give a profile, or tune in the background; not both.', {
      option: 'tune',
    });
  }
  const { openTuning, tunedPrograms } = await import('../tune/profile.ts');
  return { ...programs, provider: tunedPrograms(programs.provider, await openTuning(profile, { access, signal })) };
}

function refuseMergeOfNothing({ adapters, merge }: Pick<LoadOptions, 'adapters' | 'merge'>): void {
  if (!merge || checkAdapters(adapters, 'Kontext.load').length > 0) return;
  throw new KontextError('invalid-request', 'merge needs adapters. Give some, or leave it out.');
}

/** The adapters of a model. Loaded with the first. */
async function openShelf(
  model: Model,
  {
    adapters,
    merge,
    hub,
    access,
    onDownload,
  }: Pick<LoadOptions, 'adapters' | 'merge' | 'hub' | 'access' | 'onDownload'>,
): Promise<AdapterShelf> {
  const { AdapterShelf } = await import('./adapters/shelf.ts');
  return new AdapterShelf(model, adapters, merge === true, { ...hub, access, onProgress: onDownload });
}

/** A number where that holds it. */
function seedOf(seed: bigint): number | bigint {
  const whole = BigInt.asUintN(64, seed);
  return whole <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(whole) : whole;
}

/** Runs `work`; whatever it throws leaves as the one kind of error. */
async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asKontextError(error);
  }
}

/** @throws KontextError `invalid-request` unless it is absent or a list of sizes that a reference can have */
function checkPreparedSizes(sizes: PrepareRequest['references']): PrepareRequest['references'] {
  if (sizes === undefined) return undefined;
  if (!Array.isArray(sizes)) throw new KontextError('invalid-request', 'references must be a list of sizes.');
  for (const size of sizes) checkRequest({ prompt: 'prepare', size });
  return sizes;
}

/** Guidance by the negative prompt beyond the plain kind. */
function guidanceOf({ cfgZero, nag }: CheckedRequest): Partial<ResolvedOptions> {
  return {
    ...(cfgZero !== undefined && { cfgZeroStar: true, cfgZeroInitSteps: cfgZero }),
    ...(nag && { nagScale: nag.scale, nagTau: nag.tau, nagAlpha: nag.alpha, nagSigmaEnd: nag.sigmaEnd }),
  };
}

/** What differs from how the model is published; with it all, the same picture can be made again. */
function samplingOf(request: CheckedRequest): Partial<ResolvedOptions> {
  const { sampler, eta, schedule, sigmas, referencePositions, stitch, references } = request;
  return {
    ...(request.clipPrompt !== undefined && { clipPrompt: request.clipPrompt }),
    ...(request.cache && { cache: request.cache }),
    ...(request.expand && { expand: request.expand }),
    ...((request.guided[0] > 0 || request.guided[1] < 1) && { cfgInterval: [...request.guided] as [number, number] }),
    ...(!request.context && { context: false }),
    ...(sampler !== 'euler' && { sampler }),
    ...(sampler === 'euler_ancestral' && { eta }),
    ...(schedule !== 'model' && { schedule }),
    ...(sigmas && { sigmas: [...sigmas] }),
    ...(references.length > 1 && referencePositions !== 'offset' && { referencePositions }),
    ...(references.length > 1 &&
      referencePositions === 'stitched' && { stitchDirection: stitch.direction, stitchSpacing: stitch.spacing }),
  };
}

/** A packed model is in the formats it was packed in. */
function checkPacked(model: Model, { quantization = 'auto' }: Pick<LoadOptions, 'quantization'>): void {
  const { stored, weights } = model.parts.transformer;
  if (!stored) checkQuantisable(weights, quantization);
  if (!stored || quantization === 'auto') return;
  throw new KontextError(
    'invalid-request',
    `${model.label} is packed: its formats were chosen by kontext pack. Leave out quantization "${quantization}", or pack the model again with it.`,
  );
}

/** Binds what the memory mode will keep: the transformer, and with `resident` everything. */
async function prepareShapes(
  { model, parts, family }: PipelineContext,
  request: PrepareRequest,
  work: Work,
): Promise<void> {
  const { maxSequenceLength, steps } = checkRequest(
    {
      prompt: 'prepare',
      ...(request.steps !== undefined && { steps: request.steps }),
      ...(request.maxSequenceLength !== undefined && { maxSequenceLength: request.maxSequenceLength }),
    },
    { ...FAMILY_DEFAULTS[family], ...model.defaults },
  );
  const wanted = request.width !== undefined && request.height !== undefined;
  const size = wanted ? { width: request.width!, height: request.height! } : ('auto' as const);
  checkRequest({ prompt: 'prepare', size });
  const { target } = chooseSizes({ size, maxArea: undefined, autoResize: true }, [], model.defaults);
  const references = checkPreparedSizes(request.references) ?? (seesContext(family) ? [target] : []);
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
  profile: true,
  tune: true,
  previewDecoder: true,
  adapters: true,
  merge: true,
  hub: true,
  access: true,
  onDownload: true,
  signal: true,
});
const PLAN_KEYS = namesOf<PlanOptions>({
  precision: true,
  quantization: true,
  memory: true,
  device: true,
  programs: true,
  adapters: true,
  merge: true,
  hub: true,
  access: true,
  onDownload: true,
  signal: true,
  size: true,
  references: true,
  steps: true,
  maxSequenceLength: true,
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

type Choices = { [K in Exclude<keyof typeof LOAD_OPTIONS, 'memory'>]: (typeof LOAD_OPTIONS)[K]['choices'][number] } & {
  memory: MemoryMode | MemoryBudget;
};

function checkChoices(options: Pick<LoadOptions, keyof typeof LOAD_OPTIONS>): Choices {
  const chosen = Object.entries(LOAD_OPTIONS).map(([name, option]: [string, ChoiceOption]) => {
    const value = options[name as keyof Choices] ?? option.default;
    if (option.choices.includes(value as string)) return [name, value];
    if (option.amounts && budgetBytes(value) !== undefined) return [name, value];
    const known = option.choices.map((choice) => `"${choice}"`).join(', ');
    throw new KontextError(
      'invalid-request',
      `${name} is ${shown(value)}; it must be one of ${known}${option.amounts ? ", or an amount like '8GB'" : ''}.`,
    );
  });
  return Object.fromEntries(chosen) as Choices;
}
