// The engine: a loaded model that edits and generates, one request at a time, in this process.
// It owns the device and gets over its loss; what differs between Node and a page comes in as a Platform.
import { asKontextError, KontextError } from '../../../runtime/src/errors.ts';
import { findAdapter, type OpenDeviceOptions } from '../../../runtime/src/gpu/open.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import { loadHost } from '../host/module.ts';
import { type Model, type ModelSource, openModel, withPreviewDecoder } from '../model/open.ts';
import { resolveFile, resolveSource } from '../model/resolve.ts';
import { openPrograms } from '../programs/sources.ts';
import { checkAdapters } from './adapters/check.ts';
import { openShelf, refuseMergeOfNothing } from './adapters/open-shelf.ts';
import type { AdapterSettings } from './adapters/settings.ts';
import type { AdapterShelf, ChosenAdapters } from './adapters/shelf.ts';
import { budgetBytes, type Setting } from './budget.ts';
import { chooseSetting } from './choose-setting.ts';
import type { Rounding } from './conditioning.ts';
import { deviceOptions } from './device-options.ts';
import { checkFamily, FAMILY_DEFAULTS, type Family, familyOf } from './family.ts';
import { refuseUnknown } from './known-options.ts';
import {
  type Choices,
  checkChoices,
  checkPacked,
  DEVICE_KEYS,
  HOST_KEYS,
  type KontextPlan,
  LOAD_KEYS,
  type LoadOptions,
  type PlanOptions,
} from './load-options.ts';
import { type ModelDefaults, REQUEST_OPTIONS } from './options.ts';
import { Parts, type Work } from './parts.ts';
import { openPictures, type Platform } from './pictures.ts';
import { type PipelineContext, runPipeline } from './pipeline.ts';
import { planFor } from './plan-source.ts';
import { PREPARE_KEYS, prepareShapes } from './prepare.ts';
import { ProgressTracker } from './progress.ts';
import { Queue } from './queue.ts';
import { ReferenceEncoder } from './references.ts';
import { type CheckedRequest, checkRequest, type RequestDefaults } from './request.ts';
import { resolvedOptions } from './resolved.ts';
import { type ScheduledPrograms, withSchedules } from './schedules.ts';
import { Session as EngineSession } from './session.ts';
import { checkSignal } from './signal.ts';
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
  Session,
  StreamEvent,
} from './types.ts';

export type { KontextPlan, LoadOptions, PlanOptions } from './load-options.ts';

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
    private readonly programs: ScheduledPrograms,
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
  static plan(source: ModelSource, options?: PlanOptions): Promise<KontextPlan> {
    return planFor(source, options);
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
    // Adapters may want more steps than the model: what depends on their number is checked again when they are open.
    const late = this.#adaptersOf(request) > 0 && { steps: REQUEST_OPTIONS.steps.max };
    const checked = checkRequest(request, this.#defaults(late || {}));
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
    const chosen = await this.#choose(checked.adapters, signal);
    // What adapters want is a default like the model's; a seed is drawn once.
    const request = chosen ? { ...checkRequest(given, this.#defaults(chosen.settings)), seed: checked.seed } : checked;
    const seen = await openPictures(this.platform, request, this.options.access, signal);
    const work: Work = { signal, tracker, loadMs: 0 };
    return this.#guarded(async (context) => {
      const conditioning = this.#conditioning(context);
      await this.#useAdapters(context, chosen, signal);
      const result = await runPipeline(context, { ...request, conditioning, ...seen }, work);
      tracker.send({ type: 'done' });
      return {
        image: result.images[0]!,
        images: result.images,
        latents: result.latents,
        seed: seedOf(request.seed + BigInt(result.chosen[0]!)),
        seeds: result.chosen.map((i) => seedOf(request.seed + BigInt(i))),
        options: resolvedOptions(
          { ...request, conditioning },
          result.scene,
          context.parts.precision,
          chosen?.used ?? [],
        ),
        evaluations: result.evaluations,
        ...(request.cache && { skipped: result.skipped }),
        truncated: result.truncated,
        timings: { ...result.timings, totalMs: performance.now() - started },
        memory: context.parts.memory,
      };
    });
  }

  /** What a request leaves open: of the model's family, of the model, of adapters. */
  #defaults(adapters: AdapterSettings): RequestDefaults {
    return { ...FAMILY_DEFAULTS[this.#family], ...this.model.defaults, ...adapters };
  }

  /** How many a request uses; of a request that is not checked yet. */
  #adaptersOf(request: EditRequest | GenerateRequest): number {
    const { adapters = [], merge } = this.options;
    const own = request?.adapters ?? adapters;
    return (merge ? adapters.length : 0) + (Array.isArray(own) ? own.length : 0);
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
