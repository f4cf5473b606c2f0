// Weights on the GPU: loads what a program asks for, once, and shares it between programs.
// Range read → chunk → writeBuffer → transcode kernel; host memory stays at about two chunks whatever the model's size.

import { KontextError, throwIfAborted } from '../errors.ts';
import { readBuffer } from '../execute/ports.ts';
import type { CompiledKernel, KontextDevice } from '../gpu/device.ts';
import { BufferUsage, wholeWords } from '../gpu/flags.ts';
import { abortable } from '../net/wait.ts';
import type { Port, WeightRequest } from '../program/types.ts';
import type { ChunkWork } from './chunk-work.ts';
import { Gate } from './gate.ts';
import type { ChunkPlan } from './plan.ts';
import { RowReader } from './rows.ts';
import { PARAMS_BYTES, SEEN } from './seen.ts';
import { describeTensor, type SourceTensor, type StoredRange, sourceTensor, type WeightSource } from './source.ts';

/** Bytes of one upload. Larger ones gain nothing and cost host memory twice (ours and the driver's). */
const CHUNK_BYTES = 16 * 2 ** 20;
/** Row scales of one chunk, for matrices of usual widths. */
const SCALE_BYTES = 64 * 2 ** 10;
/** Words for what checked transcodes saw. */
const NOTES = 4096;
/** What uploads that are transcoded take on the GPU until `evict`, unless a single row is larger. */
export const STAGING_BYTES = CHUNK_BYTES + SCALE_BYTES + PARAMS_BYTES + NOTES * 4;

interface Entry {
  label: string;
  tensor: string;
  buffer: Promise<GPUBuffer>;
  /** Set when loaded. */
  loaded?: GPUBuffer;
  users: number;
}

/** The chunk being transcoded, and its parameters. */
interface Staging {
  source: GPUBuffer;
  scales: GPUBuffer;
  params: GPUBuffer;
}

export interface WeightMemory {
  /** On the GPU, used or not. */
  bytes: number;
  /** Part of `bytes` that no program uses and `evict` would free. */
  idleBytes: number;
  weights: number;
}

/** Where programs get their weights. Every `get` is paired with a `release`. */
export interface Weights {
  readonly gpu: KontextDevice;
  get(request: WeightRequest, signal?: AbortSignal): Promise<GPUBuffer>;
  release(request: WeightRequest, options?: { free?: boolean }): void;
}

/**
 * The weights of one source on one device. Every `get` is paired with a `release`; what nobody uses stays until
 * `evict`, because the next program (another image size, say) mostly wants the same.
 */
export class WeightStore implements Weights {
  private readonly entries = new Map<string, Entry>();
  /** Bytes being read or waiting for the GPU: two chunks. */
  private readonly inFlight = new Gate(2 * CHUNK_BYTES);
  private readonly rowReader: RowReader;
  private staging: Promise<Staging> | undefined;
  private notes: Promise<GPUBuffer> | undefined;
  private nextNotes: Promise<Uint32Array> | undefined;
  private currentNotes: Promise<Uint32Array> | undefined;
  private slot = 0;
  /** Loads that have not ended, also after their last upload. */
  private loading = 0;
  private stagingBytes = 0;
  private scaleBytes = 0;

  constructor(
    readonly gpu: KontextDevice,
    readonly source: WeightSource,
  ) {
    this.rowReader = new RowReader(source);
  }

  /**
   * The buffer of a weight in the wanted format, loaded on first use.
   *
   * @throws `weights-invalid` when the source lacks the tensor or it has another shape or type; `out-of-memory`; `aborted`
   */
  async get(request: WeightRequest, signal?: AbortSignal): Promise<GPUBuffer> {
    throwIfAborted(signal);
    const key = weightKey(request);
    let entry = this.entries.get(key);
    if (!entry) {
      const made: Entry = {
        label: weightLabel(request),
        tensor: request.name,
        buffer: this.load(request, signal),
        users: 0,
      };
      this.entries.set(key, made);
      made.buffer.then(
        (buffer) => {
          made.loaded = buffer;
        },
        () => this.entries.delete(key),
      );
      entry = made;
    }
    entry.users++;
    try {
      return await entry.buffer;
    } catch (error) {
      entry.users--;
      // Another caller's cancellation is not ours: load again.
      if (error instanceof KontextError && error.code === 'aborted' && !signal?.aborted)
        return this.get(request, signal);
      throw error;
    }
  }

  /** Ends one use. `free` gives the memory back at once when it was the last use; otherwise `evict` does, later. */
  release(request: WeightRequest, { free = false } = {}): void {
    const key = weightKey(request);
    const entry = this.entries.get(key);
    if (!entry) return;
    entry.users--;
    if (free && entry.users === 0) this.drop(key, entry);
  }

  /** Frees the weights that nobody uses, and the upload buffers. @param only tensors to free; the upload buffers then stay */
  async evict(only?: ReadonlySet<string>): Promise<void> {
    for (const [key, entry] of this.entries) {
      if (entry.users === 0 && entry.loaded && (!only || only.has(entry.tensor))) this.drop(key, entry);
    }
    if (only) return;
    if (!this.inFlight.idle || this.loading > 0) return;
    const { staging, notes } = this;
    this.staging = undefined;
    this.stagingBytes = 0;
    this.scaleBytes = 0;
    // A load that was cancelled early has the one without the other.
    this.notes = undefined;
    if (staging) for (const buffer of Object.values(await staging)) this.gpu.free(buffer);
    if (notes) this.gpu.free(await notes);
  }

  get memory(): WeightMemory {
    const memory: WeightMemory = { bytes: 0, idleBytes: 0, weights: 0 };
    for (const { loaded, users } of this.entries.values()) {
      if (!loaded) continue;
      memory.bytes += loaded.size;
      memory.weights++;
      if (users === 0) memory.idleBytes += loaded.size;
    }
    return memory;
  }

  /**
   * Rows of a matrix as float32 on the CPU, `[ids.length, cols]`: token embeddings, whose tables are too large to bind.
   *
   * @throws `weights-invalid`, `invalid-request` when an id is outside the table
   */
  rows(name: string, ids: ArrayLike<number>, signal?: AbortSignal): Promise<Float32Array<ArrayBuffer>> {
    return this.rowReader.rows(name, ids, signal);
  }

  private drop(key: string, entry: Entry): void {
    this.entries.delete(key);
    if (entry.loaded) this.gpu.free(entry.loaded);
  }

  private async load(request: WeightRequest, signal: AbortSignal | undefined): Promise<GPUBuffer> {
    const tensor = sourceTensor(this.source, request.name);
    const ready = this.source.stored?.(request);
    const chunks = ready
      ? []
      : (await import('./chunk-work.ts')).planChunks(request, tensor, this.source.label, CHUNK_BYTES);
    const usage = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST;
    const buffer = await this.gpu.allocate(weightLabel(request), request.bytes, usage);
    this.loading++;
    // Words of loads that are under way are never shared: there are more than a program has weights.
    const slot = this.slot++ % NOTES;
    try {
      if (chunks.length > 0) this.gpu.queue.writeBuffer(await this.ensureNotes(), slot * 4, new Uint32Array(1));
      await Promise.all([
        ...chunks.map((chunk) => this.upload(request, chunk, slot, buffer, signal)),
        ...(ready ?? []).flatMap((range) => pieces(range).map((piece) => this.copy(request, piece, buffer, signal))),
      ]);
      if (chunks.length > 0) await this.checkNotes(request, tensor, slot);
      return buffer;
    } catch (error) {
      this.gpu.free(buffer);
      throw error;
    } finally {
      this.loading--;
    }
  }

  /** Bytes that are the weight's already. */
  private async copy(
    request: WeightRequest,
    { start, end, at }: StoredRange,
    buffer: GPUBuffer,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const leave = await this.inFlight.enter(end - start);
    try {
      const data = await abortable(this.source.read(request.name, start, end, signal), signal);
      throwIfAborted(signal);
      await this.gpu.scoped(weightLabel(request), () => this.gpu.queue.writeBuffer(buffer, at, data));
      await this.gpu.idle();
    } finally {
      leave();
    }
  }

  private async upload(
    request: WeightRequest,
    chunk: ChunkPlan,
    slot: number,
    buffer: GPUBuffer,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const bytes = chunk.end - chunk.start;
    const leave = await this.inFlight.enter(bytes);
    try {
      throwIfAborted(signal);
      // A source of an app's own may ignore its signal, or never settle.
      const data = await abortable(this.source.read(request.name, chunk.start, chunk.end, signal), signal);
      const { chunkWork } = await import('./chunk-work.ts');
      const work = chunkWork(chunk, slot);
      const kernel = await this.gpu.kernel(work.kernel);
      const notes = await this.ensureNotes();
      const staging = await this.ensureStaging(bytes, chunk.rowScales?.byteLength ?? 0);
      throwIfAborted(signal);
      const label = weightLabel(request);
      await this.gpu.scoped(label, () => {
        // Queue writes and submits keep their order, so one staging buffer serves all chunks without waiting.
        const { queue } = this.gpu;
        if (!work.operands.includes('source')) this.write(buffer, chunk, data);
        else queue.writeBuffer(staging.source, 0, wholeWords(data));
        if (work.operands.includes('scales')) queue.writeBuffer(staging.scales, 0, chunk.rowScales!);
        queue.writeBuffer(staging.params, 0, work.params);
        const operands = { source: staging.source, scales: staging.scales, weight: buffer };
        const bound = [staging.params, ...work.operands.map((name) => operands[name]), notes];
        this.dispatch(bound, work.grid, kernel, label);
      });
      await this.gpu.idle();
    } finally {
      leave();
    }
  }

  /** Bytes of a chunk that stay as they are, and the scales of its rows, to where they belong. */
  private write(target: GPUBuffer, { type, params, rowScales }: ChunkPlan, data: Uint8Array<ArrayBuffer>): void {
    const [codes = 0, scales = 0] = params.sections;
    this.gpu.queue.writeBuffer(target, codes + params.start * type.bytes, data);
    if (rowScales) this.gpu.queue.writeBuffer(target, scales + (params.start / params.outCols) * 4, rowScales);
  }

  private dispatch(
    buffers: GPUBuffer[],
    [x, y]: ChunkWork['grid'],
    { pipeline, layout }: CompiledKernel,
    label: string,
  ): void {
    const { device, queue } = this.gpu;
    const group = device.createBindGroup({
      label,
      layout,
      entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
    const encoder = device.createCommandEncoder({ label });
    const pass = encoder.beginComputePass({ label });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y);
    pass.end();
    queue.submit([encoder.finish()]);
  }

  /** @throws `weights-invalid` for NaN and infinities, and for matrices of nothing but zeros: no model has them, damaged files do */
  private async checkNotes(
    { name, rows, cols, shape }: WeightRequest,
    tensor: SourceTensor,
    slot: number,
  ): Promise<void> {
    const seen = (await this.readNotes())[slot]!;
    const isMatrix = tensor.shape.filter((side) => side > 1).length > 1 && shape[0] > 1 && !rows && !cols;
    const empty = isMatrix && (seen & SEEN.notZero) === 0;
    if ((seen & SEEN.notFinite) === 0 && !empty) return;
    const what = empty ? 'is zero throughout' : 'holds values that are not finite (NaN or infinity)';
    throw new KontextError(
      'weights-invalid',
      `${this.source.label}: tensor "${name}" (${describeTensor(tensor)}) ${what}: the file is damaged. Get it again.`,
      { tensor: name, file: this.source.label, ...(empty ? { zero: true } : { notFinite: true }) },
    );
  }

  /** All words, from after this call; loads that end together share a readback. */
  private readNotes(): Promise<Uint32Array> {
    this.nextNotes ??= (async () => {
      await this.currentNotes?.catch(() => {});
      this.nextNotes = undefined;
      const port = {
        name: 'notes of weights',
        type: 'u32',
        shape: [1, NOTES],
        bytes: NOTES * 4,
        direction: 'out',
      } satisfies Port;
      const reading = readBuffer(this.gpu, await this.ensureNotes(), port, 'u32');
      this.currentNotes = reading;
      return reading;
    })();
    return this.nextNotes;
  }

  private ensureNotes(): Promise<GPUBuffer> {
    const usage = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST;
    this.notes ??= this.gpu.allocate('notes of weights', NOTES * 4, usage);
    this.notes.catch(() => {
      this.notes = undefined;
    });
    return this.notes;
  }

  /** One row of a matrix may be larger than a chunk, so the buffers can have to grow. */
  private ensureStaging(bytes: number, scaleBytes: number): Promise<Staging> {
    if (this.staging && bytes <= this.stagingBytes && scaleBytes <= this.scaleBytes) return this.staging;
    const previous = this.staging;
    this.stagingBytes = Math.max(CHUNK_BYTES, bytes, this.stagingBytes);
    this.scaleBytes = Math.max(SCALE_BYTES, scaleBytes, this.scaleBytes);
    const sizes = [this.stagingBytes, this.scaleBytes] as const;
    this.staging = (async () => {
      const old = await previous;
      if (old) for (const buffer of Object.values(old)) this.gpu.free(buffer);
      const data = BufferUsage.STORAGE | BufferUsage.COPY_DST;
      const params = BufferUsage.UNIFORM | BufferUsage.COPY_DST;
      return {
        source: await this.gpu.allocate('weight upload', sizes[0], data),
        scales: await this.gpu.allocate('weight upload scales', sizes[1], data),
        params: await this.gpu.allocate('weight upload parameters', PARAMS_BYTES, params),
      };
    })();
    this.staging.catch(() => {
      this.staging = undefined;
      this.stagingBytes = 0;
      this.scaleBytes = 0;
    });
    return this.staging;
  }
}

/** A range in uploads of a chunk's size. */
function pieces({ start, end, at }: StoredRange): StoredRange[] {
  const count = Math.ceil((end - start) / CHUNK_BYTES);
  return Array.from({ length: count }, (_, i) => ({
    start: start + i * CHUNK_BYTES,
    end: Math.min(end, start + (i + 1) * CHUNK_BYTES),
    at: at + i * CHUNK_BYTES,
  }));
}

/** Two requests with the same key are one buffer. */
export const weightKey = (r: WeightRequest): string =>
  JSON.stringify([r.name, r.rows, r.cols, r.format, r.layout, r.padIn]);

const weightLabel = (r: WeightRequest): string =>
  `weight ${r.name}${r.rows ? ` rows ${r.rows.join('…')}` : ''}${r.cols ? ` cols ${r.cols.join('…')}` : ''} ${r.format}`;
