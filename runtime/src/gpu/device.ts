// A GPU device with what WebGPU leaves to its user: errors with codes and labels, loss, a pipeline cache, byte accounts.
// Everything that touches the GPU goes through here, so no failure ends as a silent wrong result.

import { debugEnabled, debugPrint } from '../debug.ts';
import { KontextError } from '../errors.ts';
import type { Kernel } from '../program/types.ts';
import { SHADER_STAGE_COMPUTE } from './flags.ts';
import { pausing } from './polling.ts';
import type { AdapterReport } from './report.ts';

/** Dawn's backends, by its own names. */
export type Backend = 'null' | 'vulkan' | 'metal' | 'd3d12' | 'd3d11' | 'opengl' | 'opengles';

export interface CompiledKernel {
  pipeline: GPUComputePipeline;
  layout: GPUBindGroupLayout;
}

/** No dispatch of ours is predicted to take a second; a driver may compile for some on a slow machine. */
const DEFAULT_HANG_MS = 120_000;

const hungDevices: GPUDevice[] = [];

/** See {@link openDevice}. After `destroy()` or a loss every pending and later call rejects; open another device then. */
export class KontextDevice {
  /** Resolves, never rejects, when the device is gone; the error has code `device-lost` or `closed`. */
  readonly lost: Promise<KontextError>;
  /** WebGPU errors that no call was there to receive; empty unless this project or a shared user of `device` is wrong. */
  readonly uncapturedErrors: KontextError[] = [];
  private lostError: KontextError | undefined;
  private announceLoss!: (error: KontextError) => void;
  private closed = false;
  private readonly pending = new Set<(error: KontextError) => void>();
  private readonly pipelines = new Map<string, Promise<CompiledKernel>>();
  private readonly buffers = new Set<GPUBuffer>();
  private bytes = 0;
  private peak = 0;
  private readonly onUncaptured = ({ error }: GPUUncapturedErrorEvent) => {
    this.uncapturedErrors.push(errorFrom(error, 'outside any call'));
  };

  constructor(
    readonly device: GPUDevice,
    readonly report: AdapterReport,
    readonly backend?: Backend,
    /** Dawn for Node: waiting keeps the event loop turning. */
    private readonly pollsInLoop = false,
    /** Milliseconds beyond any prediction after which the GPU counts as hung. */
    readonly hangMs: number = DEFAULT_HANG_MS,
  ) {
    device.addEventListener('uncapturederror', this.onUncaptured);
    const given = new Promise<KontextError>((resolve) => {
      this.announceLoss = resolve;
    });
    this.lost = Promise.race([device.lost.then((info) => this.loseWith(info)), given]);
  }

  get queue(): GPUQueue {
    return this.device.queue;
  }

  /** Buffers made by {@link allocate} and not freed. */
  get memory(): { buffers: number; bytes: number } {
    return { buffers: this.buffers.size, bytes: this.bytes };
  }

  /** The largest sum of bytes that there has been. */
  get peakBytes(): number {
    return this.peak;
  }

  /** Throws `device-lost` or `closed` once the device is gone. */
  assertAlive(): void {
    if (this.lostError) throw this.lostError;
    if (this.closed) throw closedError();
  }

  /** `work`, or a rejection as soon as the device is lost: WebGPU's own promises may then never settle. */
  guard<T>(work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.assertAlive();
      this.pending.add(reject);
      const settled = () => this.pending.delete(reject);
      work.then(
        (value) => {
          settled();
          resolve(value);
        },
        (error: unknown) => {
          settled();
          reject(this.lostError ?? error);
        },
      );
    });
  }

  /**
   * Runs `work`, which must be synchronous, and waits for WebGPU's verdict on every call in it.
   *
   * @param label what the error names
   * @param more `describe` may find a better name in WebGPU's message; `bytes` were asked for
   * @throws `gpu-validation` or `out-of-memory`
   */
  async scoped<T>(
    label: string,
    work: () => T,
    more: { describe?: (message: string) => string | undefined; bytes?: number } = {},
  ): Promise<T> {
    this.assertAlive();
    const { device } = this;
    const kinds = ['internal', 'out-of-memory', 'validation'] as const;
    for (const kind of kinds) device.pushErrorScope(kind);
    let result: T;
    let errors: Promise<(GPUError | null)[]>;
    try {
      result = work();
    } finally {
      errors = Promise.all(kinds.map(() => device.popErrorScope()));
      errors.catch(() => {});
    }
    const error = (await this.guard(errors)).find((e) => e !== null);
    if (error)
      throw errorFrom(error, more.describe?.(error.message) ?? label, { bytes: more.bytes, allocated: this.bytes });
    return result;
  }

  /** A buffer of `bytes`, rounded up to 16, counted in {@link memory} until {@link free}. */
  async allocate(label: string, bytes: number, usage: GPUBufferUsageFlags): Promise<GPUBuffer> {
    const size = paddedBytes(bytes);
    const max = this.report.limits.maxBufferSize;
    if (max !== undefined && size > max) {
      throw new KontextError(
        'limit-too-small',
        `${label} needs a buffer of ${size} bytes; this device allows ${max}.`,
        {
          limit: 'maxBufferSize',
          needed: size,
          available: max,
          label,
        },
      );
    }
    let made: GPUBuffer | undefined;
    try {
      const buffer = await this.scoped(
        label,
        () => {
          made = this.device.createBuffer({ label, size, usage });
          return made;
        },
        { bytes: size },
      );
      this.buffers.add(buffer);
      this.bytes += size;
      this.peak = Math.max(this.peak, this.bytes);
      return buffer;
    } catch (error) {
      made?.destroy();
      throw error;
    }
  }

  /** Frees a buffer of {@link allocate}; the GPU finishes submitted work on it first. */
  free(buffer: GPUBuffer): void {
    if (!this.buffers.delete(buffer)) return;
    this.bytes -= buffer.size;
    buffer.destroy();
  }

  /** The pipeline of `kernel`, compiled once for each text and kept for the device's life. */
  kernel(kernel: Kernel): Promise<CompiledKernel> {
    const key = `${kernel.bindings.join(' ')}\n${kernel.wgsl}`;
    let compiled = this.pipelines.get(key);
    if (!compiled) {
      compiled = this.compile(kernel);
      this.pipelines.set(key, compiled);
      compiled.catch(() => this.pipelines.delete(key));
    }
    return compiled;
  }

  /** Resolves when the GPU has done everything submitted so far. */
  async idle(): Promise<void> {
    this.assertAlive();
    const done = this.queue.onSubmittedWorkDone();
    await this.guard(this.pollsInLoop ? pausing(done) : done);
  }

  /** Frees everything on the device. Pending calls reject with `closed`. */
  destroy(): void {
    if (this.closed) return;
    this.closed = true;
    this.rejectPending(closedError());
    this.letGo();
  }

  /** Treats the device as lost with `error`: what waits for it rejects, and the next user opens another. */
  giveUp(error: KontextError): void {
    if (this.closed || this.lostError) return;
    this.closed = true;
    this.lostError = error;
    // Destroying or collecting a device waits for its GPU, which would hang this thread too.
    hungDevices.push(this.device);
    this.device.removeEventListener('uncapturederror', this.onUncaptured);
    this.rejectPending(error);
    this.buffers.clear();
    this.bytes = 0;
    this.announceLoss(error);
  }

  /** Drops everything that holds the device, so that driver threads and memory go with it. */
  private letGo(): void {
    // Dawn for Node keeps a device as long as it has a listener: each closed engine would leave its threads behind.
    this.device.removeEventListener('uncapturederror', this.onUncaptured);
    this.buffers.clear();
    this.bytes = 0;
    this.pipelines.clear();
    this.device.destroy();
  }

  private async compile(kernel: Kernel): Promise<CompiledKernel> {
    const { device } = this;
    if (debugEnabled('wgsl')) debugPrint(`// ${kernel.label}\n${kernel.wgsl}`);
    const { layout, module, pipelineLayout } = await this.scoped(
      kernel.label,
      () => {
        const layout = device.createBindGroupLayout({
          label: kernel.label,
          entries: kernel.bindings.map((access, binding) => ({
            binding,
            visibility: SHADER_STAGE_COMPUTE,
            buffer: { type: BINDING_TYPES[access] },
          })),
        });
        const module = device.createShaderModule({ label: kernel.label, code: kernel.wgsl });
        const pipelineLayout = device.createPipelineLayout({ label: kernel.label, bindGroupLayouts: [layout] });
        return { layout, module, pipelineLayout };
      },
      { describe: () => `kernel "${kernel.label}"` },
    );
    try {
      const pipeline = await this.guard(
        device.createComputePipelineAsync({
          label: kernel.label,
          layout: pipelineLayout,
          compute: { module, entryPoint: 'main' },
        }),
      );
      return { pipeline, layout };
    } catch (cause) {
      if (cause instanceof KontextError) throw cause;
      throw new KontextError(
        'gpu-validation',
        `Kernel "${kernel.label}" does not compile on this device: ${(cause as Error).message}`,
        { label: kernel.label },
        { cause },
      );
    }
  }

  private loseWith(info: GPUDeviceLostInfo): KontextError {
    this.lostError ??= this.closed
      ? closedError()
      : new KontextError(
          'device-lost',
          `The GPU device was lost (${info.reason || 'unknown'}): ${info.message || 'no message'}. ` +
            'Open a new device and bind the programs again; when it recurs, use less memory.',
          { reason: info.reason || 'unknown', message: info.message },
        );
    this.rejectPending(this.lostError);
    this.letGo();
    return this.lostError;
  }

  private rejectPending(error: KontextError): void {
    for (const reject of this.pending) reject(error);
    this.pending.clear();
  }
}

/** Buffers are made in steps of 16 bytes, so that any of our vector types can view a whole one. */
export const paddedBytes = (bytes: number): number => Math.max(16, Math.ceil(bytes / 16) * 16);

const BINDING_TYPES = { read: 'read-only-storage', read_write: 'storage', uniform: 'uniform' } as const;

const closedError = () => new KontextError('closed', 'The GPU device was closed.');

/** WebGPU's three error classes, told apart by name: Node has no globals to compare with. */
function errorFrom(error: GPUError, label: string, memory: { bytes?: number; allocated?: number } = {}): KontextError {
  if (error.constructor.name === 'GPUOutOfMemoryError') {
    const wanted = memory.bytes === undefined ? label : `${label}: ${memory.bytes} bytes`;
    return new KontextError(
      'out-of-memory',
      `The GPU has no memory for ${wanted}, with ${memory.allocated ?? 0} bytes in use. Use a smaller quantization, ` +
        `a lower memory setting or a smaller image. (${error.message})`,
      { label, ...memory },
    );
  }
  return new KontextError('gpu-validation', `WebGPU refused ${label}: ${error.message}`, { label });
}
