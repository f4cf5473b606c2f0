// The GPU side of one program: its kernels, its buffers, and a bind group for each dispatch.
// Made once and reused by every run; only what changed (slabs that grew, streamed weights) is bound again.

import { KontextError, throwIfAborted } from '../errors.ts';
import type { CompiledKernel, KontextDevice } from '../gpu/device.ts';
import { BufferUsage, wholeWords } from '../gpu/flags.ts';
import { constantBytes } from '../program/check.ts';
import type { BufferKind, Port, Program } from '../program/types.ts';
import type { Weights } from '../weights/store.ts';
import type { Step } from './runner.ts';
import { allOrNone } from './settle.ts';
import type { SlabPool } from './slabs.ts';

/** `kernels` counts pipelines; `weights` counts bytes on the GPU. Both go on at the same time. */
export interface BindProgress {
  phase: 'kernels' | 'weights';
  done: number;
  total: number;
}

export interface BindingsOptions {
  ports: Record<string, GPUBuffer>;
  signal?: AbortSignal;
  onProgress?: (progress: BindProgress) => void;
}

const PORT_USAGE = BufferUsage.STORAGE | BufferUsage.UNIFORM | BufferUsage.COPY_SRC | BufferUsage.COPY_DST;

export class Bindings {
  readonly buffers: Record<BufferKind, (GPUBuffer | undefined)[]> = { port: [], slab: [], weight: [], constant: [] };
  private readonly cleanups: (() => void)[] = [];
  private readonly portIndex: Map<string, number>;
  private kernels: CompiledKernel[] = [];
  private steps: (Step | undefined)[] = [];
  private slabVersion = -1;

  /** @param store without one, on the null backend, a single buffer stands for all weights */
  constructor(
    private readonly gpu: KontextDevice,
    private readonly program: Program,
    private readonly slabs: SlabPool,
    private readonly store: Weights | undefined,
    /** Weights come and go during a run. */
    private readonly streamed: boolean,
  ) {
    this.portIndex = new Map(program.ports.map(({ name }, i) => [name, i]));
  }

  /** Makes everything, in parallel; frees everything again when something fails. */
  async make({ ports, signal, onProgress }: BindingsOptions): Promise<void> {
    // Stops the sibling loads when one of them fails.
    const stop = new AbortController();
    const combined = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    try {
      throwIfAborted(signal);
      await allOrNone(
        [
          this.compileKernels(onProgress),
          this.makePorts(ports),
          this.makeConstants(),
          this.loadWeights(combined, onProgress),
        ],
        (error) => stop.abort(error),
      );
      throwIfAborted(signal);
      this.cleanups.push(this.slabs.join(this.program.slabs));
      const unlock = await this.slabs.lock(signal);
      try {
        await this.refresh();
      } finally {
        unlock();
      }
    } catch (error) {
      this.free();
      throw error;
    }
  }

  /** Under the pool's lock: slabs as they are now, and the bind groups that are missing or stale because those changed. */
  async refresh(): Promise<void> {
    await this.slabs.ensure();
    if (this.slabVersion !== this.slabs.version) {
      this.slabVersion = this.slabs.version;
      this.buffers.slab = this.slabs.buffersFor(this.program.slabs);
      this.forget('slab');
    }
    // Streamed weights are not there yet: their steps are bound window by window.
    if (!this.streamed) await this.bind(0, this.program.dispatches.length);
  }

  /** Dispatches `[first, end)` ready to encode; every buffer they use must be there. */
  async bind(first: number, end: number): Promise<Step[]> {
    const { dispatches, kernels, label } = this.program;
    const missing: number[] = [];
    for (let i = first; i < end; i++) if (!this.steps[i]) missing.push(i);
    if (missing.length === 0) return this.steps.slice(first, end) as Step[];
    await this.gpu.scoped(
      label,
      () => {
        for (const i of missing) {
          const { bindings, kernel, ...dispatch } = dispatches[i]!;
          const { pipeline, layout } = this.kernels[kernel]!;
          const group = this.gpu.device.createBindGroup({
            label: dispatch.label,
            layout,
            entries: bindings.map(([kind, index, offset, size], binding) => ({
              binding,
              resource: { buffer: this.buffers[kind][index]!, offset, size },
            })),
          });
          const { workgroups, flops, bytes } = dispatch;
          this.steps[i] = {
            label: dispatch.label,
            kernel: kernels[kernel]!.label,
            pipeline,
            group,
            workgroups,
            flops,
            bytes,
          };
        }
      },
      {
        describe: (message) => {
          const culprit = missing.find((i) => message.includes(`"${dispatches[i]!.label}"`));
          return culprit === undefined ? undefined : `dispatch "${dispatches[culprit]!.label}"`;
        },
      },
    );
    return this.steps.slice(first, end) as Step[];
  }

  /** Drops the bind groups that use a kind of buffer, because such a buffer was replaced or freed. */
  forget(kind: BufferKind): void {
    this.program.dispatches.forEach(({ bindings }, i) => {
      if (bindings.some(([used]) => used === kind)) this.steps[i] = undefined;
    });
  }

  /** @throws `invalid-request` naming the ports there are */
  port(name: string): { info: Port; buffer: GPUBuffer } {
    const index = this.portIndex.get(name);
    if (index === undefined) {
      const names = [...this.portIndex.keys()].join(', ');
      throw new KontextError('invalid-request', `"${this.program.label}" has no port "${name}". Its ports: ${names}.`, {
        port: name,
      });
    }
    return { info: this.program.ports[index]!, buffer: this.buffers.port[index]! };
  }

  free(): void {
    for (const cleanup of this.cleanups.splice(0)) cleanup();
    this.steps = [];
  }

  private async compileKernels(onProgress: BindingsOptions['onProgress']): Promise<void> {
    const { kernels } = this.program;
    let done = 0;
    this.kernels = await Promise.all(
      kernels.map(async (kernel) => {
        const compiled = await this.gpu.kernel(kernel);
        onProgress?.({ phase: 'kernels', done: ++done, total: kernels.length });
        return compiled;
      }),
    );
  }

  private async makePorts(shared: Record<string, GPUBuffer>): Promise<void> {
    for (const name of Object.keys(shared)) this.port(name);
    await allOrNone(
      this.program.ports.map(async (port, i) => {
        const given = shared[port.name];
        if (given && given.size < port.bytes) {
          throw new KontextError(
            'program-mismatch',
            `Port "${port.name}" needs ${port.bytes} bytes, the shared buffer has ${given.size}.`,
            { port: port.name },
          );
        }
        this.buffers.port[i] = given ?? (await this.own(`port ${port.name}`, port.bytes, PORT_USAGE));
      }),
    );
  }

  private async makeConstants(): Promise<void> {
    await allOrNone(
      this.program.constants.map(async (constant, i) => {
        const data = constantBytes(constant);
        const buffer = await this.own(`constant ${i}`, data.length, PORT_USAGE);
        this.gpu.queue.writeBuffer(buffer, 0, wholeWords(data));
        this.buffers.constant[i] = buffer;
      }),
    );
  }

  private async loadWeights(signal: AbortSignal, onProgress: BindingsOptions['onProgress']): Promise<void> {
    const requests = this.program.weights;
    if (!this.store) {
      if (requests.length === 0) return;
      const bytes = Math.max(...requests.map((request) => request.bytes));
      const placeholder = await this.own('placeholder of all weights', bytes, PORT_USAGE);
      this.buffers.weight = requests.map(() => placeholder);
      return;
    }
    if (this.streamed) return;
    const store = this.store;
    const total = requests.reduce((sum, request) => sum + request.bytes, 0);
    let done = 0;
    await allOrNone(
      requests.map(async (request, i) => {
        this.buffers.weight[i] = await store.get(request, signal);
        this.cleanups.push(() => store.release(request));
        done += request.bytes;
        onProgress?.({ phase: 'weights', done, total });
      }),
    );
  }

  private async own(label: string, bytes: number, usage: GPUBufferUsageFlags): Promise<GPUBuffer> {
    const buffer = await this.gpu.allocate(`${this.program.component}: ${label}`, bytes, usage);
    this.cleanups.push(() => this.gpu.free(buffer));
    return buffer;
  }
}
