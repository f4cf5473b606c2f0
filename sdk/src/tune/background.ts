// Tuning in idle time: while an engine has nothing to do, the shapes it has used are measured on a device of their own.
// What is found is kept by adapter and driver and used from the next load on: an engine's pictures do not change under it.
import type { CompileRequest } from '../../../kernels-codegen/src/compile.ts';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { type TunableShape, tunableShapes } from '../../../kernels-codegen/src/tune/shapes.ts';
import { debugEnabled, debugPrint } from '../../../runtime/src/debug.ts';
import { type OpenDeviceOptions, openDevice } from '../../../runtime/src/gpu/open.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import type { ProgramProvider } from '../kontext/programs.ts';
import { measureShape } from './measure.ts';
import { checkTuning, TUNING_SCHEMA, type TuningProfile, tunedTarget } from './profile.ts';
import { openTuningStore, type TuningStore } from './store.ts';

/** Quiet for this many milliseconds is idle. */
const IDLE_MS = 3000;
/** For the candidates of one shape. */
const SHAPE_MS = 20_000;

export class BackgroundTuner {
  readonly #requests = new Map<string, CompileRequest>();
  /** Of this and earlier times, also where the estimate's choice stayed. */
  readonly #measured = new Set<string>();
  readonly #closing = new AbortController();
  #busy = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running: Promise<void> | undefined;
  #quiet: (() => void)[] = [];
  #adapter: AdapterReport | undefined;
  #failed = false;

  private constructor(
    private readonly device: OpenDeviceOptions,
    private readonly store: TuningStore,
    private readonly idleMs: number,
  ) {}

  /** @param idleMs quiet milliseconds that count as idle */
  static async create(device: OpenDeviceOptions, store?: TuningStore, idleMs = IDLE_MS): Promise<BackgroundTuner> {
    return new BackgroundTuner(device, store ?? (await openTuningStore()), idleMs);
  }

  /** Programs compiled as earlier idle times found best on this adapter; remembers what is asked for. */
  programs(provider: ProgramProvider): ProgramProvider {
    return {
      specs: (model) => provider.specs(model),
      target: async (device, precision) => {
        this.#adapter = device;
        const target = await provider.target(device, precision);
        const known = await this.#read(device);
        return known ? tunedTarget(target, known, device) : target;
      },
      program: (request) => {
        this.#requests.set(JSON.stringify({ ...request, target: request.target.tier }), request);
        return provider.program(request);
      },
    };
  }

  /** Work begins: what is being measured pauses after its candidate. @returns to be called when it ends */
  begin(): () => void {
    this.#busy++;
    clearTimeout(this.#timer);
    return () => {
      this.#busy--;
      if (this.#busy > 0) return;
      for (const go of this.#quiet.splice(0)) go();
      if (this.#running || this.#failed || this.#closing.signal.aborted) return;
      this.#timer = setTimeout(() => {
        this.#running = this.#run().finally(() => {
          this.#running = undefined;
        });
      }, this.idleMs);
      // A script that is done ends, measured or not.
      (this.#timer as { unref?(): void }).unref?.();
    };
  }

  /** Resolves when nothing is being measured any more. */
  async close(): Promise<void> {
    this.#closing.abort();
    clearTimeout(this.#timer);
    for (const go of this.#quiet.splice(0)) go();
    await this.#running;
  }

  async #run(): Promise<void> {
    const waiting = this.#waiting();
    if (waiting.length === 0 || !this.#adapter) return;
    try {
      const gpu = await openDevice(this.device);
      try {
        for (const { shape, target } of waiting) {
          const pause = () => this.#pause();
          await pause();
          const result = await measureShape(gpu, shape, { target, budgetMs: SHAPE_MS, pause });
          await this.#keep(shape, result.best, result.estimateMs);
          this.#measured.add(nameOf(shape));
        }
      } finally {
        gpu.destroy();
      }
    } catch (error) {
      // Nobody waits for this; the engine goes on with the estimate's choices, and tries no further.
      if (this.#closing.signal.aborted) return;
      this.#failed = true;
      if (debugEnabled('tune')) debugPrint(`tuning stopped: ${(error as Error).message}`);
    }
  }

  #waiting(): { shape: TunableShape; target: TargetProfile }[] {
    const requests = [...this.#requests.values()];
    const target = requests[0]?.target;
    if (!target) return [];
    const { tuned: _, ...plain } = target;
    const shapes = tunableShapes(requests.map((request) => ({ ...request, target: plain })));
    return shapes.filter((shape) => !this.#measured.has(nameOf(shape))).map((shape) => ({ shape, target: plain }));
  }

  async #pause(): Promise<void> {
    while (this.#busy > 0 && !this.#closing.signal.aborted) {
      await new Promise<void>((resolve) => this.#quiet.push(resolve));
    }
    this.#closing.signal.throwIfAborted();
  }

  async #read(adapter: AdapterReport): Promise<TuningProfile | undefined> {
    const content = await this.store.read(keyOf(adapter));
    try {
      const profile = content === undefined ? undefined : checkTuning(JSON.parse(content));
      for (const { family, shape } of profile?.gains ?? []) this.#measured.add(`${family} ${shape}`);
      return profile;
    } catch {
      // A damaged or older file is measured again.
      return undefined;
    }
  }

  async #keep(
    shape: TunableShape,
    best: { schedule: Readonly<Record<string, unknown>>; milliseconds: number } | undefined,
    estimateMs: number,
  ): Promise<void> {
    const adapter = this.#adapter!;
    const { vendor, architecture, device, description } = adapter;
    const known = await this.#read(adapter);
    const [tuned, gains] = [known?.tuned ?? {}, known?.gains ?? []];
    const profile: TuningProfile = {
      schema: TUNING_SCHEMA,
      adapter: { vendor, architecture, device, description },
      tuned: best ? { ...tuned, [shape.family]: { ...tuned[shape.family], [shape.key]: best.schedule } } : tuned,
      gains: [
        ...gains.filter((gain) => gain.family !== shape.family || gain.shape !== shape.key),
        {
          family: shape.family,
          shape: shape.key,
          flops: shape.flops,
          estimateMs,
          tunedMs: best?.milliseconds ?? estimateMs,
        },
      ],
    };
    await this.store.write(keyOf(adapter), JSON.stringify(profile));
  }
}

const nameOf = ({ family, key }: TunableShape): string => `${family} ${key}`;

/** Of an adapter and its driver; browsers that hide the driver have one of their own with each version. */
function keyOf({ vendor, architecture, device, description }: AdapterReport): string {
  const browser = description === '' ? (globalThis.navigator?.userAgent ?? '') : '';
  return [vendor, architecture, device, description, browser].join(' ').replace(/[^\w.+-]+/g, '_');
}
