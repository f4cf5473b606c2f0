// A program bound to a device and its weights: write the inputs, run, read the outputs.
// Binding is the slow part and happens once; a run only encodes.

import { debugEnabled, debugPrint } from '../debug.ts';
import { KontextError } from '../errors.ts';
import type { KontextDevice } from '../gpu/device.ts';
import { checkProgram, validateProgram } from '../program/check.ts';
import type { Program } from '../program/types.ts';
import type { Weights } from '../weights/store.ts';
import { Bindings, type BindProgress } from './bindings.ts';
import type { ClippedReport } from './clipped.ts';
import type { Unsound } from './inspect.ts';
import { Pace } from './pace.ts';
import { encodePortData, type ReadResult, type ReadType, readBuffer } from './ports.ts';
import { Runner } from './runner.ts';
import { SlabPool } from './slabs.ts';
import { type Feed, runStreamed } from './streaming.ts';
import type { Trace } from './trace.ts';
import { DEFAULT_WINDOW_BYTES, planWindows, type WeightWindow } from './windows.ts';

export interface ExecutableOptions {
  /** Must have every weight of the program. May be left out when it has none, or on the null backend (see {@link Executable.create}). */
  weights?: Weights;
  /** Scratch memory shared with other executables, which then run one at a time. Its own when left out. */
  slabs?: SlabPool;
  /** Buffers of other executables' ports to use as ports of this one; they stay their owner's. */
  ports?: Record<string, GPUBuffer>;
  /**
   * `resident` (default): weights are loaded by `create` and stay. `streamed`: each run loads a window of weights while the
   * one before is executing, and frees it after its last use; at most two windows are on the GPU.
   */
  residency?: 'resident' | 'streamed';
  /** Bytes of weights in one window of `streamed`; a larger single dispatch gets a window of its own. Default 256 MiB. */
  windowBytes?: number;
  /** The program came from outside and is not signed: its first run goes dispatch by dispatch, so that a hang has a name. */
  foreign?: boolean;
  signal?: AbortSignal;
  onProgress?: (progress: BindProgress) => void;
}

export interface RunOptions {
  signal?: AbortSignal;
  /** Predicted share of the work that is done, 0 to 1. */
  onProgress?: (fraction: number) => void;
  /** Into this executable's ports, before its first dispatch and in the same submission: a step's rows of a table, say. */
  copies?: PortCopy[];
  /** Encodes ahead of the copies. */
  before?: (encoder: GPUCommandEncoder) => void;
  /** Encodes after the last dispatch: copies of results. */
  after?: (encoder: GPUCommandEncoder) => void;
  /** Time every dispatch (slower). @throws `feature-missing` without `timestamp-query` */
  trace?: boolean;
}

/** All in bytes, multiples of four. */
export interface PortCopy {
  from: GPUBuffer;
  fromOffset: number;
  to: string;
  toOffset: number;
  bytes: number;
}

export type { ClippedLayer, ClippedReport } from './clipped.ts';
export type { Unsound } from './inspect.ts';

export interface RunReport {
  milliseconds: number;
  /** Part of it spent in JavaScript, encoding and submitting. */
  encodeMilliseconds: number;
  slices: number;
  /** Only when asked for. */
  trace?: Trace;
}

/** What the last program learned, as the first guess of the next one on the device. */
const devicePace = new WeakMap<KontextDevice, Pace>();

export class Executable {
  private readonly pace: Pace;
  /** Only when streamed. */
  private readonly windows: WeightWindow[];
  private disposed = false;
  /** Runs one dispatch at a time until a run has come to its end. */
  private watched = false;

  private constructor(
    readonly gpu: KontextDevice,
    readonly program: Program,
    private readonly slabs: SlabPool,
    private readonly bindings: Bindings,
    private readonly streamedFrom: Weights | undefined,
    windowBytes: number,
  ) {
    this.windows = streamedFrom ? planWindows(program, windowBytes) : [];
    this.pace = devicePace.get(gpu)?.copy() ?? new Pace();
  }

  /**
   * Checks the program, compiles its kernels in parallel, allocates ports, slabs and constants, and loads its weights.
   * Frees everything again when it fails.
   *
   * On the null backend, where nothing is computed and 512 MiB are all there is, a program may be bound without a store:
   * one buffer then stands for all its weights.
   *
   * @throws `program-invalid`, `program-mismatch`, `feature-missing`, `limit-too-small`, `weights-invalid`,
   *   `out-of-memory`, `gpu-validation` (with the label of the kernel, buffer or dispatch), `device-lost`, `aborted`
   */
  static async create(gpu: KontextDevice, program: Program, options: ExecutableOptions = {}): Promise<Executable> {
    gpu.assertAlive();
    validateProgram(program);
    checkProgram(program, gpu.report);
    const { weights } = options;
    if (!weights && program.weights.length > 0 && gpu.backend !== 'null') {
      throw new KontextError(
        'invalid-request',
        `"${program.label}" has ${program.weights.length} weights: pass a WeightStore.`,
      );
    }
    if (weights && weights.gpu !== gpu) {
      throw new KontextError('invalid-request', 'The WeightStore belongs to another device: open one on this device.');
    }
    const slabs = options.slabs ?? new SlabPool(gpu);
    const streamedFrom = options.residency === 'streamed' ? weights : undefined;
    const bindings = new Bindings(gpu, program, slabs, weights, streamedFrom !== undefined);
    await bindings.make({ ports: options.ports ?? {}, signal: options.signal, onProgress: options.onProgress });
    const windowBytes = options.windowBytes ?? DEFAULT_WINDOW_BYTES;
    const exe = new Executable(gpu, program, slabs, bindings, streamedFrom, windowBytes);
    exe.watched = options.foreign === true;
    if (debugEnabled('plan')) debugPrint(exe.describe());
    return exe;
  }

  /**
   * Writes an input. A Float32Array for an f16 port is converted; anything else is taken as the port's own bytes.
   *
   * @param byteOffset where in the port, in bytes, a multiple of four
   */
  write(port: string, data: ArrayBufferView, byteOffset = 0): void {
    this.assertOpen();
    const { info, buffer } = this.bindings.port(port);
    if (info.direction === 'out') {
      throw new KontextError('invalid-request', `Port "${port}" is an output; it cannot be written.`);
    }
    this.gpu.queue.writeBuffer(buffer, byteOffset, encodePortData(info, data, byteOffset));
  }

  /** A port's buffer, for copies between programs and for sharing through {@link ExecutableOptions.ports}. */
  port(name: string): GPUBuffer {
    this.assertOpen();
    return this.bindings.port(name).buffer;
  }

  /**
   * Runs all dispatches and resolves when the GPU has finished. Runs on one slab pool wait for each other.
   *
   * @throws `aborted` (the GPU is idle again then), `device-lost`, `gpu-validation` and `out-of-memory` with a label
   */
  async run(options: RunOptions = {}): Promise<RunReport> {
    const unlock = await this.slabs.lock(options.signal);
    try {
      this.assertOpen();
      return await this.runLocked(options);
    } finally {
      unlock();
    }
  }

  /**
   * Runs all dispatches one by one and looks at what each has written. Slow: for results that are known to be unsound.
   *
   * @returns the first dispatch with a number that is not finite, undefined when there is none
   * @throws as {@link run}
   */
  async firstUnsound(options: Pick<RunOptions, 'signal' | 'copies'> = {}): Promise<Unsound | undefined> {
    const { Inspector } = await import('./inspect.ts');
    const inspector = new Inspector(this.gpu, this.program, this.bindings.buffers, options.signal);
    await this.inspect(inspector, options);
    return inspector.found;
  }

  /**
   * Runs all dispatches one by one and counts the values that each, and each weight, has clipped to f16's range. Slow, with the
   * kernels of any run; outputs can be read afterwards. `KONTEXT_DEBUG=clipped` does the same in each run and prints it.
   *
   * @throws as {@link run}
   */
  async countClipped(options: Pick<RunOptions, 'signal' | 'copies'> = {}): Promise<ClippedReport> {
    const counter = await this.clipCounter(options.signal);
    await this.inspect(counter, options);
    return counter.report;
  }

  /**
   * Reads a port back. `f32` (default) converts an f16 port; `u32` and `i32` are for ports of that type; `bytes` for any.
   */
  async read<T extends ReadType = 'f32'>(port: string, type: T = 'f32' as T): Promise<ReadResult[T]> {
    this.assertOpen();
    const { info, buffer } = this.bindings.port(port);
    return readBuffer(this.gpu, buffer, info, type);
  }

  /** Copies into a port at once, after what was submitted before. Cheaper inside a run: {@link RunOptions.copies}. */
  copyPort(from: GPUBuffer, fromOffset: number, to: string, toOffset: number, bytes: number): Promise<void> {
    this.assertOpen();
    return this.gpu.scoped(`copy to port "${to}"`, () => {
      const encoder = this.gpu.device.createCommandEncoder({ label: `copy to ${to}` });
      encoder.copyBufferToBuffer(from, fromOffset, this.bindings.port(to).buffer, toOffset, bytes);
      this.gpu.queue.submit([encoder.finish()]);
    });
  }

  /** Waits for the current run, then frees ports, constants and the use of slabs and weights (which the store keeps until `evict`). */
  async dispose(): Promise<void> {
    if (this.disposed) return;
    this.disposed = true;
    const unlock = await this.slabs.lock();
    this.bindings.free();
    unlock();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** A run that goes through `feed`. */
  private async inspect(feed: Feed, { signal, copies }: Pick<RunOptions, 'signal' | 'copies'>): Promise<void> {
    const unlock = await this.slabs.lock(signal);
    try {
      this.assertOpen();
      await this.bindings.refresh();
      await this.feed(feed, { ...(signal && { signal }) }, (encoder) => this.encodeCopies(encoder, copies));
    } finally {
      unlock();
    }
  }

  private async clipCounter(signal: AbortSignal | undefined) {
    const { ClipCounter } = await import('./clipped.ts');
    return new ClipCounter(this.gpu, this.program, this.bindings.buffers, signal);
  }

  private async runLocked(options: RunOptions): Promise<RunReport> {
    const { gpu, program } = this;
    const print = debugEnabled('submit');
    if (options.trace && !gpu.report.features.includes('timestamp-query')) {
      throw new KontextError(
        'feature-missing',
        'Tracing needs the WebGPU feature "timestamp-query", which this device lacks.',
        { feature: 'timestamp-query' },
      );
    }
    const timestamps = options.trace ?? (print && gpu.report.features.includes('timestamp-query'));
    await this.bindings.refresh();
    const start = performance.now();
    const uncaptured = gpu.uncapturedErrors.length;
    const progress = new Progress(program, options.onProgress);
    const runner = new Runner(gpu, this.pace, {
      label: program.label,
      signal: options.signal,
      timestamps,
      oneByOne: this.watched,
      onSlice: (steps) => progress.advance(steps),
    });
    const before = (encoder: GPUCommandEncoder) => {
      options.before?.(encoder);
      this.encodeCopies(encoder, options.copies);
    };
    const counter = debugEnabled('clipped') ? await this.clipCounter(options.signal) : undefined;
    try {
      await this.feed(counter ?? runner, options, before);
      await runner.finish();
    } catch (error) {
      await runner.drain();
      throw error;
    }
    if (gpu.uncapturedErrors.length > uncaptured) throw gpu.uncapturedErrors[uncaptured];
    this.watched = false;
    devicePace.set(gpu, this.pace);
    const report: RunReport = {
      milliseconds: performance.now() - start,
      encodeMilliseconds: runner.encodeMs,
      slices: runner.slices,
    };
    if (timestamps) {
      const { Trace } = await import('./trace.ts');
      report.trace = new Trace(program.label, runner.events);
    }
    if (counter) {
      const { describeClipped } = await import('./clipped.ts');
      debugPrint(describeClipped(program.label, counter.report));
    }
    if (print)
      debugPrint(
        report.trace?.table() ?? `${program.label}: ${report.milliseconds.toFixed(1)} ms, ${report.slices} slices`,
      );
    return report;
  }

  private encodeCopies(encoder: GPUCommandEncoder, copies: readonly PortCopy[] = []): void {
    for (const { from, fromOffset, to, toOffset, bytes } of copies) {
      encoder.copyBufferToBuffer(from, fromOffset, this.bindings.port(to).buffer, toOffset, bytes);
    }
  }

  private async feed(
    runner: Feed,
    { signal, after }: RunOptions,
    before: (encoder: GPUCommandEncoder) => void,
  ): Promise<void> {
    const { program, bindings, windows, streamedFrom: store } = this;
    if (store) return runStreamed(runner, { program, bindings, store, windows, signal, before, after });
    return runner.add(await bindings.bind(0, program.dispatches.length), before, after);
  }

  private assertOpen(): void {
    if (this.disposed) throw new KontextError('closed', `"${this.program.label}" was disposed.`);
    this.gpu.assertAlive();
  }

  private describe(): string {
    const { program } = this;
    const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    const sum = (items: { bytes: number }[]) => mib(items.reduce((total, { bytes }) => total + bytes, 0));
    return [
      `${program.label}: ${program.dispatches.length} dispatches of ${program.kernels.length} kernels`,
      `  weights ${sum(program.weights)} in ${program.weights.length}${this.streamedFrom ? `, streamed in ${this.windows.length} windows` : ''}`,
      `  slabs ${program.slabs.map(mib).join(' + ') || 'none'}; constants ${sum(program.constants)}`,
      ...program.ports.map((port) => `  port ${port.direction} ${port.name}: ${port.type} [${port.shape.join(', ')}]`),
    ].join('\n');
  }
}

/** The finished share of a run, by the dispatches' size; the pace's predictions change while the run goes on. */
class Progress {
  private readonly total: number;
  private done = 0;
  private next = 0;

  constructor(
    private readonly program: Program,
    private readonly report: RunOptions['onProgress'],
  ) {
    this.total = programSize(program);
  }

  advance(dispatches: number): void {
    for (const end = this.next + dispatches; this.next < end; this.next++) {
      this.done += size(this.program.dispatches[this.next]!);
    }
    this.report?.(this.total > 0 ? this.done / this.total : 1);
  }
}

/** How much one run is, in FLOPs or what takes as long: the unit of the fraction that {@link RunOptions.onProgress} tells. */
export function programSize(program: Program): number {
  return program.dispatches.reduce((sum, dispatch) => sum + size(dispatch), 0);
}

/** In FLOPs; ten to the byte, and something for being there at all. */
const size = ({ flops, bytes }: { flops: number; bytes: number }): number => flops + 10 * bytes + 1e6;
