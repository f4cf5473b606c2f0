// A model's weights with adapters added to them: what cannot run beside a layer, and what is never to change.
// A view like any other source of weights: tensors it changes are read as float32, so every stored format can be made of them.

import { readBuffer } from '../../execute/ports.ts';
import type { KontextDevice } from '../../gpu/device.ts';
import { BufferUsage, wholeWords } from '../../gpu/flags.ts';
import type { Kernel, WeightRequest } from '../../program/types.ts';
import { elementCount, type SourceTensor, sourceTensor, type WeightSource } from '../source.ts';
import { WeightStore, type Weights } from '../store.ts';
import { F32 } from '../types/floats.ts';
import { addDense } from './dense.ts';
import { product } from './factors.ts';
import { type Share, scalesOf, stackedRank, stackFactors } from './stack.ts';

/** Rank-one terms of more elements than this are summed on the GPU; smaller products are not worth the way there. */
const CPU_PRODUCT = 2 ** 16;

/**
 * W + Σ scale · ΔW of the tensors that `changes` names, and `base`'s own weights for all others.
 *
 * Changed tensors are kept in a store of their own, which `evict` empties; `base` never holds them in this form.
 */
export class MergedWeights implements Weights {
  private readonly changed: WeightStore;

  /** @param changes by the tensor's name in `base`'s source */
  constructor(
    private readonly base: WeightStore,
    private readonly changes: ReadonlyMap<string, readonly Share[]>,
  ) {
    this.changed = new WeightStore(base.gpu, mergedSource(base, changes));
  }

  get gpu(): KontextDevice {
    return this.base.gpu;
  }

  get(request: WeightRequest, signal?: AbortSignal): Promise<GPUBuffer> {
    return this.of(request).get(request, signal);
  }

  release(request: WeightRequest, options?: { free?: boolean }): void {
    this.of(request).release(request, options);
  }

  /** Of the changed tensors. */
  get names(): ReadonlySet<string> {
    return new Set(this.changes.keys());
  }

  /** Of the changed tensors alone. */
  get bytes(): number {
    return this.changed.memory.bytes;
  }

  /** Frees the changed tensors that no program uses. */
  evict(): Promise<void> {
    return this.changed.evict();
  }

  private of({ name }: WeightRequest): WeightStore {
    return this.changes.has(name) ? this.changed : this.base;
  }
}

function mergedSource(base: WeightStore, changes: ReadonlyMap<string, readonly Share[]>): WeightSource {
  const tensors = new Map<string, SourceTensor>();
  for (const name of changes.keys()) {
    const { shape } = sourceTensor(base.source, name);
    tensors.set(name, f32Tensor(shape));
  }
  /** The factors of the tensor that is read now; its chunks follow each other. */
  let latest: { name: string; stack: Promise<Product | undefined> } | undefined;
  const source: WeightSource = {
    label: base.source.label,
    tensors,
    async read(name, start, end, signal) {
      const { shape } = sourceTensor(source, name);
      const rows = shape[0] ?? 1;
      const cols = elementCount(shape.slice(1));
      const rowBytes = cols * 4;
      const [first, last] = [Math.floor(start / rowBytes), Math.ceil(end / rowBytes)];
      const shares = changes.get(name)!;
      if (latest?.name !== name) latest = { name, stack: stackOf(shares, rows, cols, signal) };
      const stack = await latest.stack;
      const values = await mergedRows(base, name, shape, [first, last], stack, signal);
      for (const share of shares) {
        if (!isFactored(share)) await addDense(values, share, [first, last], cols, signal);
      }
      return new Uint8Array(values.buffer, start - first * rowBytes, end - start);
    },
    close: async () => {},
  };
  return source;
}

function f32Tensor(shape: readonly number[]): SourceTensor {
  return { dtype: 'F32', type: F32, shape: [...shape], bytes: elementCount(shape) * 4 };
}

/** The shares of one tensor that are products of factors, their scales inside `up`. */
interface Product {
  up: Float32Array<ArrayBuffer>;
  down: Float32Array<ArrayBuffer>;
  rank: number;
}

/** LoHa's product of ranks is still far smaller than what it makes; Kronecker products are made row by row. */
const isFactored = ({ update }: Share): boolean => update.stored.kind === 'low-rank' || update.stored.kind === 'loha';

async function stackOf(
  shares: readonly Share[],
  rows: number,
  cols: number,
  signal: AbortSignal | undefined,
): Promise<Product | undefined> {
  const factored = shares.filter(isFactored);
  if (factored.length === 0) return undefined;
  const rank = stackedRank(factored);
  const { up, down, unit } = await stackFactors(factored, rows, cols, rank, signal);
  const scales = scalesOf(factored, unit);
  for (let i = 0; i < up.length; i++) up[i]! *= scales[i % rank]!;
  return { up, down, rank };
}

/** Rows `[first, end)` of the base's tensor as float32, with the product added on the GPU. */
async function mergedRows(
  base: WeightStore,
  name: string,
  shape: readonly number[],
  [first, end]: readonly [number, number],
  stack: Product | undefined,
  signal: AbortSignal | undefined,
): Promise<Float32Array<ArrayBuffer>> {
  const cols = elementCount(shape.slice(1));
  const rows = end - first;
  const request: WeightRequest = {
    name,
    rows: [first, end],
    format: 'f32',
    shape: [rows, cols],
    layout: 'matrix',
    bytes: Math.ceil((rows * cols) / 4) * 16,
  };
  const wide = await base.get(request, signal);
  try {
    const up = stack?.up.subarray(first * stack.rank, end * stack.rank);
    const onGpu = stack && rows * cols > CPU_PRODUCT;
    if (onGpu) await addProduct(base.gpu, wide, up!, stack.down, stack.rank, cols, rows);
    const port = { name, direction: 'out', type: 'f32', shape: [rows, cols], bytes: rows * cols * 4 } as const;
    const values = await readBuffer(base.gpu, wide, { ...port, shape: [...port.shape] }, 'f32');
    if (stack && !onGpu) {
      product(up!, stack.down, rows, stack.rank, cols).forEach((value, i) => {
        values[i]! += value;
      });
    }
    return values;
  } finally {
    base.release(request, { free: true });
  }
}

const WORKGROUP = 64;

/** wide[n, k] += Σ_r up[n, r] · down[r, k], float32; a thread adds one element. */
const ADD_PRODUCT: Kernel = {
  label: 'add an adapter to a weight',
  bindings: ['uniform', 'read', 'read', 'read_write'],
  wgsl: `
struct Params { count: u32, cols: u32, rank: u32, groupsX: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read> down: array<f32>;
@group(0) @binding(3) var<storage, read_write> wide: array<f32>;

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * p.groupsX + group.x) * ${WORKGROUP}u + lane;
  if (i >= p.count) { return; }
  let row = i / p.cols;
  let col = i % p.cols;
  var sum = 0.0;
  for (var r = 0u; r < p.rank; r++) { sum += up[row * p.rank + r] * down[r * p.cols + col]; }
  wide[i] += sum;
}
`,
};

async function addProduct(
  gpu: KontextDevice,
  wide: GPUBuffer,
  up: Float32Array<ArrayBuffer>,
  down: Float32Array<ArrayBuffer>,
  rank: number,
  cols: number,
  rows: number,
): Promise<void> {
  const { pipeline, layout } = await gpu.kernel(ADD_PRODUCT);
  const groups = Math.ceil((rows * cols) / WORKGROUP);
  const x = Math.min(groups, 32768);
  const buffers: GPUBuffer[] = [];
  const upload = async (label: string, data: ArrayBufferView<ArrayBuffer>, usage: GPUBufferUsageFlags) => {
    const buffer = await gpu.allocate(label, data.byteLength, usage | BufferUsage.COPY_DST);
    buffers.push(buffer);
    gpu.queue.writeBuffer(buffer, 0, wholeWords(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)));
    return buffer;
  };
  try {
    const params = await upload('merge parameters', Uint32Array.of(rows * cols, cols, rank, x), BufferUsage.UNIFORM);
    const factors = [
      await upload('merge up', up, BufferUsage.STORAGE),
      await upload('merge down', down, BufferUsage.STORAGE),
    ];
    await gpu.scoped(ADD_PRODUCT.label, () => {
      const { device } = gpu;
      const group = device.createBindGroup({
        label: ADD_PRODUCT.label,
        layout,
        entries: [params, ...factors, wide].map((buffer, binding) => ({ binding, resource: { buffer } })),
      });
      const encoder = device.createCommandEncoder({ label: ADD_PRODUCT.label });
      const pass = encoder.beginComputePass({ label: ADD_PRODUCT.label });
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(x, Math.ceil(groups / x));
      pass.end();
      gpu.queue.submit([encoder.finish()]);
    });
    await gpu.idle();
  } finally {
    for (const buffer of buffers) gpu.free(buffer);
  }
}
