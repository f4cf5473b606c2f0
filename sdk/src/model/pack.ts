// Packs a model for the web: every weight once, in the GPU's own layout, in shards of at most 64 MiB (Node, Deno).
// The GPU that packs does it with the kernels that would do it while loading, so a packed model gives the same bits.
import type { CompileRequest } from '../../../kernels-codegen/src/compile.ts';
import { KontextError, throwIfAborted } from '../../../runtime/src/errors.ts';
import { readBuffer } from '../../../runtime/src/execute/ports.ts';
import type { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import { storedLayout } from '../../../runtime/src/program/formats.ts';
import type { WeightRequest } from '../../../runtime/src/program/types.ts';
import { type PackedTensor, packedBytes } from '../../../runtime/src/weights/files/packed.ts';
import { elementCount, partsOf, type WeightSource } from '../../../runtime/src/weights/source.ts';
import { WeightStore } from '../../../runtime/src/weights/store.ts';
import { writeWhole } from '../files/whole.ts';
import { builtInTable } from '../host/built-in-tables.ts';
import { buildClipTable, buildT5Table } from '../host/tables.ts';
import { EMBEDDING_NAMES } from '../kontext/parts.ts';
import { justInTime, type ModelSpecs } from '../kontext/programs.ts';
import { lockFolder } from './lock-folder.ts';
import { newFolder } from './new-folder.ts';
import type { Model, PartName } from './open.ts';
import { type PackRules, packFormats } from './pack-formats.ts';
import { PACKED_FILE, PART_NAMES, type PackedManifest, type Shard } from './packed.ts';

export const SHARD_BYTES = 64 * 2 ** 20;

/** How to pack. */
export interface PackOptions {
  /** Default `q4`: matrices of transformer and T5 in q4, modulation in q8, all else in f16. */
  quantization?: PackRules;
  /** What users of the packed model must know of its licence; goes into the manifest. */
  licence?: string;
  signal?: AbortSignal;
  /** Told of each tensor. */
  onProgress?: (done: { file: string; bytes: number; totalBytes: number }) => void;
}

/** What came out. */
export interface PackReport {
  folder: string;
  /** Bytes by part, and of everything. */
  parts: Record<PartName, number>;
  bytes: number;
  files: number;
}

/**
 * @param folder new or empty
 * @throws KontextError `invalid-request` for a folder that is not empty or a rule that is none; `weights-invalid`; `aborted`
 */
export async function packModel(
  model: Model,
  gpu: KontextDevice,
  folder: string,
  options: PackOptions = {},
): Promise<PackReport> {
  const formats = packFormats(options.quantization ?? 'q4');
  const place = await newFolder(folder).catch((cause: unknown) => {
    throw unwritable(folder, cause);
  });
  try {
    return await packInto(model, gpu, folder, formats, options);
  } catch (cause) {
    // Half a model is none: the folder is as it was.
    await place.restore();
    throw unwritable(folder, cause);
  }
}

/** What the system says of files, as the one kind of error. */
function unwritable(folder: string, cause: unknown): unknown {
  if (typeof (cause as { syscall?: unknown } | undefined)?.syscall !== 'string') return cause;
  return new KontextError(
    'invalid-request',
    `Cannot write ${folder}: ${(cause as Error).message}.`,
    { folder },
    { cause },
  );
}

async function packInto(
  model: Model,
  gpu: KontextDevice,
  folder: string,
  formats: ReturnType<typeof packFormats>,
  options: PackOptions,
): Promise<PackReport> {
  const specs = await justInTime().specs(model);
  const manifest: PackedManifest = {
    version: 1,
    model: model.label.split(/[\\/]/).filter(Boolean).at(-1) ?? 'model',
    ...(options.licence !== undefined && { licence: options.licence }),
    schedule: model.schedule,
    defaults: model.defaults,
    tokenizers: { clip: 'clip.table', t5: 't5.table' },
    parts: {} as PackedManifest['parts'],
  };
  await writeWhole(
    `${folder}/clip.table`,
    model.clipTokenizer ? tableOf(model.clipTokenizer, buildClipTable) : await builtInTable('clip'),
  );
  await writeWhole(
    `${folder}/t5.table`,
    model.t5Tokenizer ? tableOf(model.t5Tokenizer, buildT5Table) : await builtInTable('t5'),
  );

  const wanted = await Promise.all(
    PART_NAMES.map(async (part) => ({ part, requests: await wholeRequests(part, specs, model, gpu) })),
  );
  const totalBytes = wanted.reduce(
    (sum, { requests }) => sum + requests.reduce((a, r) => a + 2 * elementCount(r.shape), 0),
    0,
  );
  let bytes = 0;
  for (const { part, requests } of wanted) {
    const { weights, config } = model.parts[part];
    const store = new WeightStore(gpu, weights);
    const shards = new ShardWriter(folder, part);
    const tensors: Record<string, PackedTensor> = {};
    try {
      for (const request of requests) {
        throwIfAborted(options.signal);
        const format = formats(part, request);
        const [rows, cols] = request.shape;
        const layout = storedLayout(format, rows, cols);
        const shaped = { ...request, format, bytes: Math.ceil(layout.bytes / 16) * 16 };
        const buffer = await store.get(shaped, options.signal);
        tensors[request.name] = {
          shape: weights.tensors.get(request.name)!.shape,
          offset: await shards.append(
            await readBuffer(gpu, buffer, { name: request.name, type: 'u32', bytes: layout.bytes } as never, 'bytes'),
          ),
          stored: { format, rows, cols, layout: request.layout },
        };
        store.release(shaped, { free: true });
        bytes += 2 * rows * cols;
        options.onProgress?.({ file: request.name, bytes, totalBytes });
      }
      if (part === 'clip' || part === 't5') {
        const name = EMBEDDING_NAMES[part].find((known) => weights.tensors.has(known))!;
        tensors[name] = await copyTable(weights, name, shards, options.signal);
      }
      manifest.parts[part] = { ...(config && { config }), shards: await shards.finish(), tensors };
    } finally {
      await shards.close();
      await store.evict();
    }
  }
  // Last of the model's files: without it the folder is no model.
  await writeWhole(`${folder}/${PACKED_FILE}`, `${JSON.stringify(manifest)}\n`);
  const lock = await lockFolder(folder, options.signal ? { signal: options.signal } : {});
  const sizes = Object.values(lock.files).map(({ size }) => size);
  return {
    folder,
    parts: Object.fromEntries(
      PART_NAMES.map((part) => [part, manifest.parts[part].shards.reduce((sum, shard) => sum + shard.bytes, 0)]),
    ) as PackReport['parts'],
    bytes: sizes.reduce((a, b) => a + b, 0),
    files: sizes.length + 1,
  };
}

/** Every weight that programs of a part read, whole: what they slice by rows lies in it. */
async function wholeRequests(
  part: PartName,
  specs: ModelSpecs,
  model: Model,
  gpu: KontextDevice,
): Promise<WeightRequest[]> {
  const { compile } = await import('../../../kernels-codegen/src/compile.ts');
  const target = await justInTime().target(gpu.report, 'auto');
  // Weights do not depend on shapes; these are small.
  const grid = { width: 4, height: 4 };
  const image = { width: 64, height: 64 };
  const components = {
    clip: [{ component: 'clip', spec: specs.clip, tokens: 77 }],
    t5: [{ component: 't5', spec: specs.t5, tokens: 16 }],
    transformer: [
      { component: 'modulation', spec: specs.transformer, steps: 1 },
      { component: 'denoise', spec: specs.transformer, textTokens: 16, image: grid, references: [grid] },
    ],
    vae: [
      { component: 'vae-encode', spec: specs.vae, ...image },
      { component: 'vae-decode', spec: specs.vae, ...image },
    ],
  }[part];
  const requests = new Map<string, WeightRequest>();
  for (const component of components) {
    for (const request of compile({ ...component, target, quantization: 'f16' } as unknown as CompileRequest).weights) {
      const tensor = model.parts[part].weights.tensors.get(request.name);
      const { rows, cols: _, ...rest } = request;
      const whole = rows && tensor ? wholeShape(tensor.shape, request) : request.shape;
      requests.set(request.name, { ...rest, shape: whole });
    }
  }
  return [...requests.values()];
}

/** The shape that a row slice is cut out of; a vector's elements are its rows. */
function wholeShape(shape: readonly number[], request: WeightRequest): [number, number] {
  if (shape.length === 1) return [shape[0]!, 1];
  return [shape[0]!, request.shape[1]];
}

/** A table that is read by rows keeps its bytes. */
async function copyTable(
  weights: WeightSource,
  name: string,
  shards: ShardWriter,
  signal: AbortSignal | undefined,
): Promise<PackedTensor> {
  const tensor = weights.tensors.get(name)!;
  const [only, ...more] = partsOf(tensor);
  if (more.length > 0 || !only?.type || only.scales) {
    throw new KontextError('weights-invalid', `"${name}" cannot be packed: it is ${tensor.dtype}.`, { tensor: name });
  }
  let offset: number | undefined;
  for (let start = 0; start < tensor.bytes; start += SHARD_BYTES / 4) {
    const bytes = await weights.read(name, start, Math.min(tensor.bytes, start + SHARD_BYTES / 4), signal);
    const at = await shards.append(bytes);
    offset ??= at;
  }
  const packed: PackedTensor = { shape: tensor.shape, offset: offset!, dtype: only.type.name };
  if (packedBytes(packed) !== tensor.bytes) throw new Error(`${name}: ${packedBytes(packed)} bytes of ${tensor.bytes}`);
  return packed;
}

/** A stream of bytes into files of at most {@link SHARD_BYTES}. */
class ShardWriter {
  private readonly shards: Shard[] = [];
  private current: { handle: import('node:fs/promises').FileHandle; hash: import('node:crypto').Hash } | undefined;
  private offset = 0;

  constructor(
    private readonly folder: string,
    private readonly part: string,
  ) {}

  /** @returns where in the stream the bytes start; lengths are multiples of 4 but for the last */
  async append(bytes: Uint8Array): Promise<number> {
    const start = this.offset;
    for (let at = 0; at < bytes.length; ) {
      const { handle, hash } = await this.file();
      const shard = this.shards.at(-1)!;
      const piece = bytes.subarray(at, at + Math.min(bytes.length - at, SHARD_BYTES - shard.bytes));
      await handle.appendFile(piece);
      hash.update(piece);
      shard.bytes += piece.length;
      at += piece.length;
      if (shard.bytes === SHARD_BYTES) await this.end();
    }
    this.offset += bytes.length;
    // Tensors start on words.
    const gap = (4 - (this.offset % 4)) % 4;
    if (gap > 0) await this.append(new Uint8Array(gap));
    return start;
  }

  async finish(): Promise<Shard[]> {
    await this.end();
    return this.shards;
  }

  async close(): Promise<void> {
    await this.current?.handle.close();
    this.current = undefined;
  }

  private async file() {
    if (this.current) return this.current;
    const { open } = await import('node:fs/promises');
    const { createHash } = await import('node:crypto');
    const file = `${this.part}-${String(this.shards.length + 1).padStart(4, '0')}.bin`;
    this.shards.push({ file, bytes: 0, sha256: '' });
    this.current = { handle: await open(`${this.folder}/${file}`, 'w'), hash: createHash('sha256') };
    return this.current;
  }

  private async end(): Promise<void> {
    if (!this.current) return;
    const { handle, hash } = this.current;
    this.current = undefined;
    await handle.sync();
    await handle.close();
    this.shards.at(-1)!.sha256 = hash.digest('hex');
  }
}

function tableOf<T>(files: T | { table: Uint8Array }, build: (files: T) => Uint8Array): Uint8Array {
  return typeof files === 'object' && files !== null && 'table' in files
    ? (files.table as Uint8Array)
    : build(files as T);
}
