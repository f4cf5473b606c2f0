// What takes part: makes a work ready, then computes it as often as it is told. Runs in Node and in pages.

import type { Work } from './works.ts';

/** Computes the work from inputs in memory to the result in memory; weights stay on the device. */
export type Run = () => Promise<Float32Array>;

export interface Contender {
  /** Everything before the first run. */
  prepare(work: Work): Promise<Run>;
}

/** The contenders by their names in the tables; how each is loaded, so that a page gets only what it runs. */
export const CONTENDERS = {
  ours: () => import('./contenders/ours.ts').then(({ ours }) => ours('auto')),
  'ours, f32': () => import('./contenders/ours.ts').then(({ ours }) => ours('f32')),
  'TensorFlow.js WebGPU': () => import('./contenders/tensorflow.ts').then(({ tensorflow }) => tensorflow()),
  'jax-js WebGPU': () => import('./contenders/jax.ts').then(({ jax }) => jax()),
  'ONNX Runtime Web WebGPU': () => import('./contenders/onnx-runtime.ts').then((m) => m.onnxRuntime('webgpu', 1)),
  'ONNX Runtime Web WASM': () => import('./contenders/onnx-runtime.ts').then((m) => m.onnxRuntime('wasm', 1)),
  'ONNX Runtime native, 1 thread': () => import('./contenders/onnx-runtime.ts').then((m) => m.onnxRuntime('cpu', 1)),
  'ONNX Runtime native, 2 threads': () => import('./contenders/onnx-runtime.ts').then((m) => m.onnxRuntime('cpu', 2)),
} satisfies Record<string, () => Promise<Contender>>;

export type ContenderName = keyof typeof CONTENDERS;

/** One contender with one work, driven from outside: what a process or a page offers. */
export class Entrant {
  private run: Run | undefined;
  private contender: Contender | undefined;

  /** Loads the code, which no figure counts. */
  async load(name: ContenderName): Promise<void> {
    this.contender = await CONTENDERS[name]();
  }

  /** @returns milliseconds to the end of the first result, and that */
  async prepare(work: Work): Promise<{ ms: number; result: Float32Array }> {
    const start = performance.now();
    this.run = await this.contender!.prepare(work);
    const result = await this.run();
    return { ms: performance.now() - start, result };
  }

  /** @returns milliseconds of a run */
  async again(): Promise<number> {
    const start = performance.now();
    await this.run!();
    return performance.now() - start;
  }
}
