// The model's networks on the GPU: binds programs to weights when a stage needs them and frees them when it is over.
// All programs share one set of slabs, so memory is that of the largest, not of the sum.
import type { BundleShape } from '../../../kernels-codegen/src/bundle/types.ts';
import type { Component } from '../../../kernels-codegen/src/compile.ts';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { Executable, programSize } from '../../../runtime/src/execute/executable.ts';
import { SlabPool } from '../../../runtime/src/execute/slabs.ts';
import type { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import type { Program } from '../../../runtime/src/program/types.ts';
import { WeightStore } from '../../../runtime/src/weights/store.ts';
import { heldFormats } from '../model/formats.ts';
import type { Model, ModelPart, PartName } from '../model/open.ts';
import type { AdapterBindings } from './adapters/bindings.ts';
import type { AdapterPlans } from './adapters/room.ts';
import type { MemoryMode, Precision, Quantization } from './options.ts';
import type { ModelSpecs, ProgramProvider, ProgramRequest } from './programs.ts';
import type { ProgressTracker } from './progress.ts';
import type { MemoryUse } from './types.ts';

export interface PartsOptions {
  precision: Precision;
  quantization: Quantization;
  memory: MemoryMode;
  /** The programs come from outside and are not signed: they are watched the first time they run. */
  foreign?: boolean;
}

/** A request's signal and progress, handed down to whatever loads or runs for it. */
export interface Work {
  signal: AbortSignal;
  tracker: ProgressTracker;
  /** Milliseconds spent compiling and loading so far. */
  loadMs: number;
}

/** A component without the model's own numbers, which {@link Parts} adds. */
export type ShapeRequest = BundleShape | Omit<Extract<Component, { component: 'preview-decode' }>, 'spec'>;

/** The networks of a model, and the small decoder that an app may give for previews. */
type StoreName = PartName | 'preview';

/** Programs are kept as data beyond their binding: compiling one of FLUX takes a tenth of a second, an app has a few sizes. */
const PROGRAMS_KEPT = 24;

/** The networks of one model on one device. Not for use by two requests at once. */
export class Parts {
  readonly #programs = new Map<string, Program>();
  readonly #bound = new Map<Component['component'], { key: string; executable: Executable }>();
  readonly #stores: Record<PartName, WeightStore> & { preview?: WeightStore };
  readonly #slabs: SlabPool;
  /** There from the first request with adapters on. */
  #adapters: AdapterBindings | undefined;

  private constructor(
    readonly gpu: KontextDevice,
    readonly specs: ModelSpecs,
    readonly target: TargetProfile,
    readonly options: PartsOptions,
    private readonly provider: ProgramProvider,
    readonly model: Model,
  ) {
    this.#slabs = new SlabPool(gpu);
    const store = (part: PartName) => new WeightStore(gpu, model.parts[part].weights);
    this.#stores = { clip: store('clip'), t5: store('t5'), transformer: store('transformer'), vae: store('vae') };
    if (model.previewDecoder && specs.preview) this.#stores.preview = new WeightStore(gpu, model.previewDecoder);
  }

  /** @throws KontextError `weights-invalid` when the model is not of FLUX's kind, `feature-missing` */
  static async create(
    gpu: KontextDevice,
    model: Model,
    provider: ProgramProvider,
    options: PartsOptions,
  ): Promise<Parts> {
    const specs = await provider.specs(model);
    const target = await provider.target(gpu.report, options.precision);
    return new Parts(gpu, specs, target, options, provider, model);
  }

  /** Precision of matmul operands. */
  get precision(): 'f32' | 'f16' {
    return this.target.tier === 'f32' ? 'f32' : 'f16';
  }

  /**
   * Runs everything bound from now on with these adapters.
   *
   * @param make called for the first ones
   * @param always what is in the weights for good
   * @returns the text encoders' variant
   */
  async useAdapters(
    make: (stores: Record<'transformer' | 'clip' | 't5', WeightStore>) => AdapterBindings,
    plans: AdapterPlans,
    always: AdapterPlans,
  ): Promise<string> {
    this.#adapters ??= make(this.#stores);
    await this.#adapters.use(plans, always, (part) => {
      // Changed weights are no longer held as the file holds them.
      this.#programs.clear();
      return this.#unbindPart(part);
    });
    for (const [component, { executable }] of [...this.#bound]) {
      if (this.#adapters.isIdle(component, executable)) await this.unbind(component);
    }
    return this.#adapters.textVariant;
  }

  /** The program of a component at a shape, with room for the adapters in use, and whether it is bound already. */
  async program(shape: ShapeRequest): Promise<{ program: Program; bound: boolean; key: string }> {
    const room = this.#adapters?.room(shape.component, this.#bound.get(shape.component)?.executable);
    const request = room ? ({ ...shape, room } as ShapeRequest) : shape;
    const key = JSON.stringify(request);
    const program = this.#programs.get(key) ?? (await this.provider.program(this.#complete(request)));
    this.#programs.delete(key);
    this.#programs.set(key, program);
    for (const oldest of this.#programs.keys()) {
      if (this.#programs.size <= PROGRAMS_KEPT) break;
      this.#programs.delete(oldest);
    }
    return { program, bound: this.#bound.get(request.component)?.key === key, key };
  }

  /**
   * Makes a program ready to run: kernels compiled, weights loaded. The last one of each component stays bound.
   *
   * @param ports buffers shared with other programs; such a binding is not reused
   */
  async bind(request: ShapeRequest, work: Work, ports?: Record<string, GPUBuffer>): Promise<Executable> {
    const { component } = request;
    const { program, bound, key } = await this.program(request);
    const known = bound && !ports ? this.#bound.get(component)!.executable : undefined;
    if (known) {
      await this.#adapters?.fill(component, known, work.signal);
      return known;
    }
    await this.unbind(component);
    const started = performance.now();
    const weights = this.#adapters?.weights(PART_OF[component]) ?? this.#stores[PART_OF[component]]!;
    let loaded = 0;
    let last = started;
    const executable = await Executable.create(this.gpu, program, {
      weights,
      slabs: this.#slabs,
      residency: this.#streamed(component) ? 'streamed' : 'resident',
      ...(ports && { ports }),
      foreign: this.options.foreign === true,
      signal: work.signal,
      onProgress: ({ phase, done, total }) => {
        // Kernels compile while weights load: the time since the last of either is counted once.
        const now = performance.now();
        const elapsed = now - last;
        last = now;
        if (phase === 'kernels') {
          work.tracker.finish(`compile ${component}`, 1, elapsed);
          return work.tracker.send({ type: 'compile', component, done, total });
        }
        work.tracker.finish(`load ${component}`, done - loaded, elapsed);
        loaded = done;
        work.tracker.send({ type: 'load', component, loadedBytes: done, totalBytes: total });
      },
    });
    this.#bound.set(component, { key, executable });
    await this.#adapters?.fill(component, executable, work.signal);
    work.loadMs += performance.now() - started;
    return executable;
  }

  /** Runs a bound program once, counted in the request's progress. @returns milliseconds */
  async run(
    executable: Executable,
    work: Work,
    options: Omit<Parameters<Executable['run']>[0] & object, 'signal'> = {},
  ): Promise<number> {
    const { program } = executable;
    const size = programSize(program);
    let done = 0;
    let last = performance.now();
    const { milliseconds } = await executable.run({
      ...options,
      signal: work.signal,
      onProgress: (fraction) => {
        const now = performance.now();
        work.tracker.finish(`run ${program.component}`, (fraction - done) * size, now - last);
        [done, last] = [fraction, now];
      },
    });
    return milliseconds;
  }

  /** Token embeddings: rows of a table that never goes to the GPU. `[ids.length, width]` */
  embeddings(part: 'clip' | 't5', ids: ArrayLike<number>, signal: AbortSignal): Promise<Float32Array<ArrayBuffer>> {
    const store = this.#stores[part];
    const name = EMBEDDING_NAMES[part].find((known) => store.source.tensors.has(known)) ?? EMBEDDING_NAMES[part][0]!;
    return store.rows(name, ids, signal);
  }

  /** A buffer of its own, counted in the memory; give it back with {@link free}. */
  async allocate(label: string, bytes: number, usage: GPUBufferUsageFlags): Promise<GPUBuffer> {
    const buffer = await this.gpu.allocate(label, bytes, usage);
    return buffer;
  }

  free(buffer: GPUBuffer): void {
    this.gpu.free(buffer);
  }

  /** Frees a component's ports; its weights stay in the store until {@link release}. */
  async unbind(component: Component['component']): Promise<void> {
    const entry = this.#bound.get(component);
    this.#bound.delete(component);
    await entry?.executable.dispose();
  }

  /** Frees programs and weights of a part. */
  async release(part: StoreName): Promise<void> {
    await this.#unbindPart(part);
    await this.#adapters?.evict(part);
    await this.#stores[part]?.evict();
  }

  get memory(): MemoryUse {
    const weightBytes = Object.values(this.#stores).reduce((sum, store) => sum + store.memory.bytes, 0);
    const { bytes } = this.gpu.memory;
    const adapterBytes = this.#adapters?.bytes([...this.#bound.values()].map(({ executable }) => executable)) ?? 0;
    return {
      weightBytes,
      adapterBytes,
      activationBytes: bytes - weightBytes - adapterBytes,
      peakBytes: this.gpu.peakBytes,
    };
  }

  async #unbindPart(part: StoreName): Promise<void> {
    for (const component of [...this.#bound.keys()]) if (PART_OF[component] === part) await this.unbind(component);
  }

  #streamed(component: Component['component']): boolean {
    return isStreamed(component, this.options.memory);
  }

  #complete(request: ShapeRequest): ProgramRequest {
    const { specs, target, model, options } = this;
    const changed = this.#adapters?.changed(PART_OF[request.component]);
    return completeRequest(request, { specs, target, model, quantization: options.quantization, changed });
  }
}

/** A packed model has no choice; a quantised file is held as it is unless another storage is asked for. */
function storedIn({ stored, weights }: ModelPart, asked: Quantization): ModelPart['stored'] {
  return stored ?? (asked === 'auto' ? heldFormats(weights) : undefined);
}

/**
 * Adds the model's own numbers to a shape.
 *
 * @param of `changed`: tensors that adapters are added to, which are no longer held as the file holds them
 */
export function completeRequest(
  request: ShapeRequest,
  of: {
    specs: ModelSpecs;
    target: TargetProfile;
    model: Model;
    quantization: Quantization;
    changed?: ReadonlySet<string> | undefined;
  },
): ProgramRequest {
  const part = PART_OF[request.component];
  const asked = of.quantization;
  const quantization = asked !== 'auto' && (part === 'transformer' || part === 't5') ? asked : 'none';
  const all = part === 'preview' ? undefined : storedIn(of.model.parts[part], asked);
  const stored =
    all && of.changed ? Object.fromEntries(Object.entries(all).filter(([name]) => !of.changed!.has(name))) : all;
  return {
    ...request,
    spec: of.specs[part],
    target: of.target,
    quantization,
    ...(stored && { stored }),
  } as ProgramRequest;
}

/**
 * Whether a component's weights pass through the GPU rather than stay. Adaptive-norm linears run once a request: never worth
 * holding, unless everything is held. T5 is three quarters of a gigabyte and more in any format.
 */
export function isStreamed(component: Component['component'], memory: MemoryMode): boolean {
  if (component === 'modulation') return memory !== 'resident';
  return (component.startsWith('denoise') || component === 't5') && memory === 'streamed';
}

/** Floating-point operations of one run. */
export function programFlops(program: Program): number {
  return program.dispatches.reduce((sum, dispatch) => sum + dispatch.flops, 0);
}

/** Whose weights a component reads. */
export const PART_OF: Record<Component['component'], StoreName> = {
  clip: 'clip',
  t5: 't5',
  modulation: 'transformer',
  denoise: 'transformer',
  'denoise-first': 'transformer',
  'denoise-rest': 'transformer',
  'denoise-skip': 'transformer',
  'denoise-tell': 'transformer',
  'denoise-given': 'transformer',
  'denoise-nag': 'transformer',
  'denoise-region': 'transformer',
  'taylor-update': 'transformer',
  'taylor-predict': 'transformer',
  euler: 'transformer',
  cfg: 'transformer',
  'cfg-zero': 'transformer',
  'keep-known': 'transformer',
  sampler: 'transformer',
  'vae-encode': 'vae',
  'vae-decode': 'vae',
  'preview-decode': 'preview',
  'tile-blend': 'vae',
  'tile-finish': 'vae',
};

/** Checkpoints store T5's one table under either name. */
export const EMBEDDING_NAMES: Record<'clip' | 't5', string[]> = {
  clip: ['text_model.embeddings.token_embedding.weight'],
  t5: ['shared.weight', 'encoder.embed_tokens.weight'],
};
