// ONNX Runtime: in WebAssembly, on WebGPU, and, in Node, its native library, which shows what the processor can do.

import { transposed } from '../arithmetic.ts';
import type { Contender } from '../contender.ts';
import { OUTPUT, onnxModel, onnxShape } from '../onnx-graph.ts';

type Provider = 'wasm' | 'webgpu' | 'cpu';

interface Value {
  data: Float32Array;
  dims: readonly number[];
  dispose(): void;
}

/** What is used of the package. */
interface Runtime {
  env: { wasm: { numThreads: number; wasmPaths?: string }; logLevel: string };
  InferenceSession: {
    create(
      model: Uint8Array,
      options: Record<string, unknown>,
    ): Promise<{ run(feeds: Record<string, Value>): Promise<Record<string, Value>> }>;
  };
  Tensor: new (type: 'float32', data: Float32Array, dims: number[]) => Value;
}

/** Set in pages: where the package's files are served. Its WASM is found beside its script, so it is not bundled. */
declare global {
  var onnxRuntimeFolder: string | undefined;
}

/** @param threads of the processor; the two in pages stay with one, which needs no isolated page */
export async function onnxRuntime(provider: Provider, threads: number): Promise<Contender> {
  const folder = globalThis.onnxRuntimeFolder;
  const name =
    provider === 'cpu' ? 'onnxruntime-node' : provider === 'wasm' ? 'onnxruntime-web' : 'onnxruntime-web/webgpu';
  const script = folder === undefined ? name : `${folder}ort.${provider === 'wasm' ? 'wasm' : 'webgpu'}.min.mjs`;
  const module = (await import(/* @vite-ignore */ script)) as Runtime & { default?: Runtime };
  const ort = module.default ?? module;
  ort.env.logLevel = 'error';
  if (provider !== 'cpu') {
    ort.env.wasm.numThreads = threads;
    if (folder !== undefined) ort.env.wasm.wasmPaths = folder;
  }
  return {
    async prepare(work) {
      const session = await ort.InferenceSession.create(onnxModel(work), {
        executionProviders: [provider],
        graphOptimizationLevel: 'all',
        ...(provider === 'cpu' ? { intraOpNumThreads: threads, interOpNumThreads: 1 } : {}),
      });
      const data = Object.entries(work.inputs).map(([name, input]) => {
        const values = work.image ? transposed(input.data, input.rows, input.columns) : input.data;
        return { name, values, shape: onnxShape(work, input) };
      });
      return async () => {
        const feeds = data.map(({ name, values, shape }) => [name, new ort.Tensor('float32', values, shape)] as const);
        const result = (await session.run(Object.fromEntries(feeds)))[OUTPUT]!;
        if (!work.image) return result.data;
        const pixels = work.image.height * work.image.width;
        return transposed(result.data, result.data.length / pixels, pixels);
      };
    },
  };
}
