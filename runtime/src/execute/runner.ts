// Feeds a list of dispatches to the GPU in slices of about 100 ms, two in flight.
// Between slices is where cancelling, progress and errors happen; a page stays alive and no watchdog bites.

import { type KontextError, throwIfAborted } from '../errors.ts';
import type { KontextDevice } from '../gpu/device.ts';
import { BufferUsage, MAP_MODE_READ } from '../gpu/flags.ts';
import { type Pace, SLICE_MS } from './pace.ts';
import type { TraceEvent } from './trace.ts';
import { watch } from './watchdog.ts';

/** A dispatch with everything bound. */
export interface Step {
  label: string;
  kernel: string;
  pipeline: GPUComputePipeline;
  group: GPUBindGroup;
  workgroups: readonly [number, number, number];
  flops: number;
  bytes: number;
}

export interface RunnerOptions {
  label: string;
  signal?: AbortSignal;
  /** Record a time for each dispatch; one compute pass each, so the run gets slower. */
  timestamps: boolean;
  /** Submit each dispatch alone, so that one that never comes back is known by name. */
  oneByOne?: boolean;
  /** Called when a slice is done, with the number of its steps. */
  onSlice?: (steps: number) => void;
}

/** WebGPU allows 4096 queries a set; a dispatch takes two. */
const TRACED_STEPS = 2048;

interface Slice {
  steps: readonly Step[];
  predictedMs: number;
  submittedAt: number;
  /** Rejects with what WebGPU found wrong. */
  verdict: Promise<void>;
  done: Promise<void>;
  queries?: { set: GPUQuerySet; resolved: GPUBuffer; readback: GPUBuffer; steps: readonly Step[] };
}

/** One run. Use: `add` as often as wanted, then `finish`; after an error of either, `drain`. */
export class Runner {
  readonly events: TraceEvent[] = [];
  slices = 0;
  encodeMs = 0;
  private readonly inFlight: Slice[] = [];
  private lastDone = 0;

  constructor(
    private readonly gpu: KontextDevice,
    private readonly pace: Pace,
    private readonly options: RunnerOptions,
  ) {}

  /**
   * Submits all `steps`, waiting whenever two slices are in flight.
   *
   * @param before encodes into the first slice, ahead of its first dispatch
   * @param after encodes into the last slice
   */
  async add(
    steps: readonly Step[],
    before?: (encoder: GPUCommandEncoder) => void,
    after?: (encoder: GPUCommandEncoder) => void,
  ): Promise<void> {
    let first = 0;
    do {
      throwIfAborted(this.options.signal);
      let predictedMs = 0;
      let end = first;
      const most = this.options.timestamps ? first + TRACED_STEPS : steps.length;
      while (end < steps.length && end < most) {
        const ms = this.pace.predict(steps[end]!);
        if (end > first && (this.options.oneByOne || predictedMs + ms > SLICE_MS)) break;
        predictedMs += ms;
        end++;
      }
      this.submit(
        steps.slice(first, end),
        predictedMs,
        first === 0 ? before : undefined,
        end === steps.length ? after : undefined,
      );
      first = end;
      while (this.inFlight.length >= 2) await this.settleOldest();
    } while (first < steps.length);
  }

  /** Waits until everything submitted so far is done. */
  async finish(): Promise<void> {
    while (this.inFlight.length > 0) await this.settleOldest();
  }

  /** Waits for the GPU after an error, whose cause is known already. */
  async drain(): Promise<void> {
    for (const { verdict, done, queries } of this.inFlight.splice(0)) {
      await Promise.allSettled([verdict, done]);
      if (queries) this.freeQueries(queries);
    }
  }

  private submit(
    steps: readonly Step[],
    predictedMs: number,
    before?: (encoder: GPUCommandEncoder) => void,
    after?: (encoder: GPUCommandEncoder) => void,
  ): void {
    const { gpu, options } = this;
    const start = performance.now();
    let queries: Slice['queries'];
    const verdict = gpu
      .scoped(options.label, () => {
        const encoder = gpu.device.createCommandEncoder({ label: options.label });
        before?.(encoder);
        if (options.timestamps && steps.length > 0) queries = this.encodeTimed(encoder, steps);
        else encodePass(encoder, steps, options.label);
        after?.(encoder);
        gpu.queue.submit([encoder.finish()]);
      })
      .catch(async (error: KontextError) => {
        if (error.code === 'gpu-validation') await this.findCulprit(steps);
        throw error;
      });
    const done = gpu.idle();
    // Both are awaited in settleOldest; until then a rejection is not unhandled.
    verdict.catch(() => {});
    done.catch(() => {});
    this.encodeMs += performance.now() - start;
    this.slices++;
    this.inFlight.push({ steps, predictedMs, submittedAt: start, verdict, done, queries });
  }

  /** Encodes each dispatch alone, without submitting, so that the error names the one WebGPU refuses. */
  private async findCulprit(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      await this.gpu.scoped(`dispatch "${step.label}"`, () => {
        const encoder = this.gpu.device.createCommandEncoder({ label: step.label });
        encodePass(encoder, [step], step.label);
        encoder.finish();
      });
    }
  }

  private async settleOldest(): Promise<void> {
    const slice = this.inFlight[0]!;
    await watch(
      this.gpu,
      slice.verdict.then(() => slice.done),
      {
        program: this.options.label,
        dispatches: slice.steps.map(({ label }) => label),
        predictedMs: slice.predictedMs,
      },
    );
    const now = performance.now();
    this.pace.learn(slice.predictedMs, now - Math.max(slice.submittedAt, this.lastDone));
    this.lastDone = now;
    if (slice.queries) await this.readTimes(slice.queries);
    this.inFlight.shift();
    this.options.onSlice?.(slice.steps.length);
  }

  private encodeTimed(encoder: GPUCommandEncoder, steps: readonly Step[]): NonNullable<Slice['queries']> {
    const { device } = this.gpu;
    const count = steps.length * 2;
    const set = device.createQuerySet({ label: 'dispatch times', type: 'timestamp', count });
    const usage = BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_SRC;
    const resolved = device.createBuffer({ label: 'dispatch times', size: count * 8, usage });
    const readback = device.createBuffer({
      label: 'dispatch times readback',
      size: count * 8,
      usage: BufferUsage.MAP_READ | BufferUsage.COPY_DST,
    });
    steps.forEach((step, i) => {
      const timestampWrites = { querySet: set, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
      const pass = encoder.beginComputePass({ label: step.label, timestampWrites });
      dispatch(pass, step);
      pass.end();
    });
    encoder.resolveQuerySet(set, 0, count, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, readback, 0, count * 8);
    return { set, resolved, readback, steps };
  }

  private async readTimes(queries: NonNullable<Slice['queries']>): Promise<void> {
    const { readback, steps } = queries;
    await this.gpu.guard(readback.mapAsync(MAP_MODE_READ));
    const times = new BigUint64Array(readback.getMappedRange());
    const origin = times[0]!;
    const base = Number(origin);
    steps.forEach(({ label, kernel, flops, bytes }, i) => {
      // Differences first: a clock of nanoseconds since 1970 would not fit a double.
      const startNs = base + Number(times[2 * i]! - origin);
      const durationNs = Math.max(0, Number(times[2 * i + 1]! - times[2 * i]!));
      this.events.push({ label, kernel, startNs, durationNs, flops, bytes });
    });
    this.freeQueries(queries);
  }

  private freeQueries({ set, resolved, readback }: NonNullable<Slice['queries']>): void {
    set.destroy();
    resolved.destroy();
    readback.destroy();
  }
}

function encodePass(encoder: GPUCommandEncoder, steps: readonly Step[], label: string): void {
  if (steps.length === 0) return;
  const pass = encoder.beginComputePass({ label });
  let pipeline: GPUComputePipeline | undefined;
  for (const step of steps) {
    if (step.pipeline !== pipeline) {
      pipeline = step.pipeline;
      pass.setPipeline(pipeline);
    }
    pass.setBindGroup(0, step.group);
    pass.dispatchWorkgroups(step.workgroups[0], step.workgroups[1], step.workgroups[2]);
  }
  pass.end();
}

function dispatch(pass: GPUComputePassEncoder, step: Step): void {
  pass.setPipeline(step.pipeline);
  pass.setBindGroup(0, step.group);
  pass.dispatchWorkgroups(step.workgroups[0], step.workgroups[1], step.workgroups[2]);
}
