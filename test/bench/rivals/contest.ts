// Runs every task with ours and with the others, in turns, in whatever has a `navigator.gpu`: a page, or Node with Dawn.
// Everyone keeps operands on the device; a run ends when the result can be read. First runs, with compilation, are told apart.

import { acc } from '../../../kernels-codegen/src/expr/expr.ts';
import { attention, chooseAttentionSchedule } from '../../../kernels-codegen/src/kernels/attention/index.ts';
import { conv2d } from '../../../kernels-codegen/src/kernels/conv2d/index.ts';
import type { KernelSource, MatrixView } from '../../../kernels-codegen/src/kernels/kernel.ts';
import { matmul } from '../../../kernels-codegen/src/kernels/matmul/index.ts';
import { targetFor } from '../../../kernels-codegen/src/targets/profiles.ts';
import { reportAdapter } from '../../../runtime/src/gpu/report.ts';
import { type OnnxGraph, onnxModel } from './onnx.ts';
import { errorOf, expected, flopsOf, nameOf, operandsOf, TASKS, type Task, transposed } from './tasks.ts';

/** A task ready to run. */
interface Prepared {
  run(): Promise<void>;
  /** In the layout of the task's comment. */
  result(): Promise<Float32Array>;
}

type Contender = (task: Task, operands: Float32Array<ArrayBuffer>[]) => Promise<Prepared>;

export interface Row {
  task: string;
  who: string;
  /** Milliseconds from operands to the first result, compilation included. */
  readyMs: number;
  /** Of the runs after it. */
  times: number[];
  flops: number;
  error: number;
  /** Why there is no figure. */
  failed?: string;
}

/** @param load gives a rival's module; @param rounds alternating runs of all contenders */
export async function contest(
  load: (name: string) => Promise<unknown>,
  wasm: { paths: string },
  rounds: number,
): Promise<{ adapter: string; rows: Row[] }> {
  const adapter = (await navigator.gpu.requestAdapter())!;
  const { vendor, architecture, description } = adapter.info;
  const contenders: Record<string, () => Promise<Contender>> = {
    ours: () => ours(adapter),
    'ONNX Runtime Web, WASM': async () => onnx(await load('onnxruntime-web'), 'wasm', wasm.paths),
    'ONNX Runtime Web, WebGPU': async () => onnx(await load('onnxruntime-web'), 'webgpu', wasm.paths),
    'TensorFlow.js WebGPU': async () => tensorflow(await load('tensorflow')),
    'jax-js WebGPU': async () => jax(await load('jax')),
  };
  const made = new Map<string, Contender | Error>();
  for (const [who, make] of Object.entries(contenders)) {
    made.set(who, await make().catch((error: unknown) => new Error(String((error as Error)?.message ?? error))));
  }
  const rows: Row[] = [];
  for (const task of TASKS) {
    const operands = operandsOf(task);
    const want = expected(task, operands);
    const ready: { row: Row; prepared: Prepared }[] = [];
    for (const [who, contender] of made) {
      const row: Row = { task: nameOf(task), who, readyMs: 0, times: [], flops: flopsOf(task), error: 0 };
      rows.push(row);
      try {
        if (contender instanceof Error) throw contender;
        const started = performance.now();
        const prepared = await contender(task, operands);
        await prepared.run();
        row.error = errorOf(await prepared.result(), want);
        row.readyMs = performance.now() - started;
        ready.push({ row, prepared });
      } catch (error) {
        row.failed = String((error as Error)?.message ?? error).slice(0, 200);
      }
    }
    for (let round = 0; round < rounds; round++) {
      for (const { row, prepared } of ready) {
        const started = performance.now();
        await prepared.run();
        row.times.push(performance.now() - started);
      }
    }
  }
  return { adapter: description || `${vendor} ${architecture}`, rows };
}

/** Our kernels as the compiler chooses them for this adapter in float32. */
async function ours(adapter: GPUAdapter): Promise<Contender> {
  const { maxStorageBufferBindingSize, maxBufferSize, maxComputeWorkgroupStorageSize } = adapter.limits;
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX } = adapter.limits;
  const device = await adapter.requestDevice({
    requiredLimits: {
      ...{ maxStorageBufferBindingSize, maxBufferSize, maxComputeWorkgroupStorageSize },
      ...{ maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX },
    },
  });
  const target = targetFor(reportAdapter(adapter, device), 'f32');
  return async (task, operands) => {
    const kernel = kernelOf(task, target);
    const module = device.createShaderModule({ code: kernel.wgsl });
    const pipeline = await device.createComputePipelineAsync({
      layout: 'auto',
      compute: { module, entryPoint: 'main' },
    });
    const sizes = [...operands.map(({ byteLength }) => byteLength), outputLength(task) * 4];
    const buffers = sizes.map((size) => device.createBuffer({ size, usage: 0x80 | 0x08 | 0x04 }));
    for (const [i, data] of operands.entries()) device.queue.writeBuffer(buffers[i]!, 0, data);
    const group = device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
    const out = buffers.at(-1)!;
    return {
      async run() {
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(...kernel.workgroups);
        pass.end();
        device.queue.submit([encoder.finish()]);
        await device.queue.onSubmittedWorkDone();
      },
      async result() {
        const copy = device.createBuffer({ size: out.size, usage: 0x01 | 0x08 });
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(out, 0, copy, 0, out.size);
        device.queue.submit([encoder.finish()]);
        await copy.mapAsync(1);
        return new Float32Array(copy.getMappedRange().slice(0));
      },
    };
  };
}

const view = (rows: number, cols: number): MatrixView => ({ type: 'f32', rows, cols, rowStride: cols, offset: 0 });
const epilogue = { expr: acc, operands: [] };

function kernelOf(t: Task, target: ReturnType<typeof targetFor>): KernelSource {
  if (t.kind === 'matmul') {
    const weight = { format: 'f32' as const, rows: t.n, cols: t.k };
    return matmul({ m: t.m, n: t.n, segments: [{ a: view(t.m, t.k) }], weight, epilogue, out: view(t.m, t.n) }, target);
  }
  if (t.kind === 'attention') {
    const all = view(t.tokens, t.heads * t.size);
    const shape = { heads: t.heads, size: t.size, scale: 1 / Math.sqrt(t.size), causal: false };
    const spec = { ...shape, q: all, k: all, v: all, out: all };
    return attention(spec, target, chooseAttentionSchedule(spec, target));
  }
  const { side, cin, cout } = t;
  const geometry = { inHeight: side, inWidth: side, outHeight: side, outWidth: side, padTop: 1, padLeft: 1 };
  const weight = { format: 'f32' as const, rows: cout, cols: 9 * cin };
  return conv2d(
    {
      ...geometry,
      cin,
      cout,
      kernel: 3,
      stride: 1,
      upsample: 1,
      x: view(side ** 2, cin),
      weight,
      epilogue,
      out: view(side ** 2, cout),
    },
    target,
  );
}

const outputLength = (t: Task): number =>
  t.kind === 'matmul' ? t.m * t.n : t.kind === 'attention' ? t.tokens * t.heads * t.size : t.side ** 2 * t.cout;

/** What is used of ONNX Runtime Web. */
interface Ort {
  env: { wasm: { wasmPaths: string; numThreads: number }; logLevel: string };
  Tensor: new (type: 'float32', data: Float32Array, dims: number[]) => OrtTensor;
  InferenceSession: { create(model: Uint8Array, options: object): Promise<OrtSession> };
}
interface OrtTensor {
  data: Float32Array;
  getData?(): Promise<Float32Array>;
  dispose(): void;
}
interface OrtSession {
  run(feeds: Record<string, OrtTensor>): Promise<Record<string, OrtTensor>>;
}

async function onnx(module: unknown, provider: 'wasm' | 'webgpu', paths: string): Promise<Contender> {
  const ort = module as Ort;
  ort.env.wasm.wasmPaths = paths;
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = 'error';
  return async (task, operands) => {
    const { graph, feeds } = onnxTask(task, operands);
    const session = await ort.InferenceSession.create(onnxModel(graph), {
      executionProviders: [provider],
      ...(provider === 'webgpu' && { preferredOutputLocation: 'cpu' }),
    });
    const tensors = Object.fromEntries(
      Object.entries(feeds).map(([name, data]) => [name, new ort.Tensor('float32', data, graph.inputs[name]!)]),
    );
    let last: OrtTensor | undefined;
    return {
      async run() {
        last = (await session.run(tensors)).y!;
      },
      async result() {
        const data = await (last!.getData?.() ?? last!.data);
        return task.kind === 'conv' ? transposed(data, task.cout, task.side ** 2) : data;
      },
    };
  };
}

function onnxTask(
  t: Task,
  operands: Float32Array<ArrayBuffer>[],
): { graph: OnnxGraph; feeds: Record<string, Float32Array> } {
  const [a, b, c] = operands as [Float32Array<ArrayBuffer>, Float32Array<ArrayBuffer>, Float32Array<ArrayBuffer>];
  if (t.kind === 'matmul') {
    return {
      graph: {
        nodes: [{ op: 'MatMul', inputs: ['a', 'b'], output: 'y' }],
        inputs: { a: [t.m, t.k] },
        output: ['y', [t.m, t.n]],
        weights: { b: { shape: [t.k, t.n], values: transposed(b, t.n, t.k) } },
      },
      feeds: { a },
    };
  }
  if (t.kind === 'attention') {
    const shape = [1, t.tokens, t.heads * t.size];
    const attributes = { num_heads: t.heads };
    return {
      graph: {
        // The runtime's own fused operation, its fastest.
        nodes: [
          { op: 'MultiHeadAttention', domain: 'com.microsoft', inputs: ['q', 'k', 'v'], output: 'y', attributes },
        ],
        inputs: { q: shape, k: shape, v: shape },
        output: ['y', shape],
        weights: {},
      },
      feeds: { q: a, k: b, v: c },
    };
  }
  const { side, cin, cout } = t;
  const filters = new Float32Array(b.length);
  for (let n = 0; n < cout; n++)
    filters.set(transposed(b.subarray(n * 9 * cin, (n + 1) * 9 * cin), 9, cin), n * 9 * cin);
  return {
    graph: {
      nodes: [
        { op: 'Conv', inputs: ['x', 'w'], output: 'y', attributes: { kernel_shape: [3, 3], pads: [1, 1, 1, 1] } },
      ],
      inputs: { x: [1, cin, side, side] },
      output: ['y', [1, cout, side, side]],
      weights: { w: { shape: [cout, cin, 3, 3], values: filters } },
    },
    feeds: { x: transposed(a, side ** 2, cin) },
  };
}

/** What is used of TensorFlow.js. */
interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  tensor(values: Float32Array, shape: number[]): TfTensor;
  tidy<T>(f: () => T): T;
  matMul(a: TfTensor, b: TfTensor, transposeA?: boolean, transposeB?: boolean): TfTensor;
  transpose(x: TfTensor, order: number[]): TfTensor;
  softmax(x: TfTensor): TfTensor;
  mul(x: TfTensor, factor: number): TfTensor;
  conv2d(x: TfTensor, filter: TfTensor, stride: number, pad: 'same'): TfTensor;
}
interface TfTensor {
  data(): Promise<Float32Array>;
  dispose(): void;
}

async function tensorflow(module: unknown): Promise<Contender> {
  const tf = module as Tf;
  if (!(await tf.setBackend('webgpu'))) throw new Error('its WebGPU backend does not start here');
  await tf.ready();
  return async (task, operands) => {
    const compute = tfTask(tf, task, operands);
    let last: Float32Array | undefined;
    return {
      async run() {
        const y = tf.tidy(compute);
        last = await y.data();
        y.dispose();
      },
      result: async () => last!,
    };
  };
}

function tfTask(tf: Tf, t: Task, operands: Float32Array<ArrayBuffer>[]): () => TfTensor {
  const [a, b] = operands as [Float32Array<ArrayBuffer>, Float32Array<ArrayBuffer>];
  if (t.kind === 'matmul') {
    const [x, w] = [tf.tensor(a, [t.m, t.k]), tf.tensor(transposed(b, t.n, t.k), [t.k, t.n])];
    return () => tf.matMul(x, w);
  }
  if (t.kind === 'attention') {
    const [q, k, v] = operands.map((values) => tf.tensor(values, [t.tokens, t.heads, t.size])) as [
      TfTensor,
      TfTensor,
      TfTensor,
    ];
    return () => {
      const [qs, ks, vs] = [q, k, v].map((x) => tf.transpose(x, [1, 0, 2])) as [TfTensor, TfTensor, TfTensor];
      const weights = tf.softmax(tf.mul(tf.matMul(qs, ks, false, true), 1 / Math.sqrt(t.size)));
      return tf.transpose(tf.matMul(weights, vs), [1, 0, 2]);
    };
  }
  const { side, cin, cout } = t;
  const x = tf.tensor(a, [1, side, side, cin]);
  // `[cout, 9, cin]` to `[9, cin, cout]`.
  const filter = tf.tensor(transposed(b, cout, 9 * cin), [3, 3, cin, cout]);
  return () => tf.conv2d(x, filter, 1, 'same');
}

/** What is used of jax-js; its arrays are given away with each use, unless `ref` is taken. */
interface Jax {
  init(device: string): Promise<string[]>;
  defaultDevice(device: string): void;
  jit<F>(f: F): F;
  numpy: {
    array(values: Float32Array, options: { shape: number[] }): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
  };
  nn: { dotProductAttention(q: JaxArray, k: JaxArray, v: JaxArray): JaxArray };
  lax: { conv(x: JaxArray, w: JaxArray, strides: number[], padding: string): JaxArray };
}
interface JaxArray {
  ref: JaxArray;
  data(): Promise<Float32Array>;
}

async function jax(module: unknown): Promise<Contender> {
  const j = module as Jax;
  const devices = await j.init('webgpu');
  if (!devices.includes('webgpu')) throw new Error('its WebGPU backend does not start here');
  j.defaultDevice('webgpu');
  return async (task, operands) => {
    const { f, arrays } = jaxTask(j, task, operands);
    const compiled = j.jit(f);
    let last: Float32Array | undefined;
    return {
      async run() {
        last = await compiled(...arrays.map((array) => array.ref)).data();
      },
      result: async () => (task.kind === 'conv' ? transposed(last!, task.cout, task.side ** 2) : last!),
    };
  };
}

function jaxTask(
  j: Jax,
  t: Task,
  operands: Float32Array<ArrayBuffer>[],
): { f: (...arrays: JaxArray[]) => JaxArray; arrays: JaxArray[] } {
  const [a, b] = operands as [Float32Array<ArrayBuffer>, Float32Array<ArrayBuffer>];
  const array = (values: Float32Array, shape: number[]) => j.numpy.array(values, { shape });
  if (t.kind === 'matmul') {
    const arrays = [array(a, [t.m, t.k]), array(transposed(b, t.n, t.k), [t.k, t.n])];
    return { f: (x, w) => j.numpy.matmul(x!, w!), arrays };
  }
  if (t.kind === 'attention') {
    const arrays = operands.map((values) => array(values, [1, t.tokens, t.heads, t.size]));
    return { f: (q, k, v) => j.nn.dotProductAttention(q!, k!, v!), arrays };
  }
  const { graph, feeds } = onnxTask(t, operands);
  const arrays = [array(feeds.x!, graph.inputs.x!), array(graph.weights.w!.values, graph.weights.w!.shape)];
  return { f: (x, w) => j.lax.conv(x!, w!, [1, 1], 'SAME'), arrays };
}
