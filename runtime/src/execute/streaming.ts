// Runs a program whose weights are not kept: a window of them loads while the one before is executing.
// For models larger than the GPU, and for the modulation program, whose 3.2 billion parameters are used once.

import type { Program } from '../program/types.ts';
import type { Weights } from '../weights/store.ts';
import type { Bindings } from './bindings.ts';
import type { Runner } from './runner.ts';
import { allOrNone } from './settle.ts';
import type { WeightWindow } from './windows.ts';

/** What takes dispatches in order: the runner, or what looks at each of them. */
export type Feed = Pick<Runner, 'add' | 'finish' | 'drain'>;

export interface StreamedRun {
  program: Program;
  bindings: Bindings;
  store: Weights;
  windows: readonly WeightWindow[];
  signal?: AbortSignal;
  before: (encoder: GPUCommandEncoder) => void;
  after?: (encoder: GPUCommandEncoder) => void;
}

/** Window k executes while k + 1 loads, and is freed before k + 2 starts to load. Holds no weights when it returns or throws. */
export async function runStreamed(runner: Feed, run: StreamedRun): Promise<void> {
  const { program, bindings, store, windows } = run;
  const stop = new AbortController();
  const signal = run.signal ? AbortSignal.any([run.signal, stop.signal]) : stop.signal;
  const held = new Set<number>();
  const load = async (window: WeightWindow | undefined) => {
    await allOrNone(
      (window?.load ?? []).map(async (index) => {
        bindings.buffers.weight[index] = await store.get(program.weights[index]!, signal);
        held.add(index);
      }),
      (error) => stop.abort(error),
    );
  };
  const drop = (indices: readonly number[]) => {
    for (const index of indices) {
      store.release(program.weights[index]!, { free: true });
      bindings.buffers.weight[index] = undefined;
      held.delete(index);
    }
  };
  let loading = load(windows[0]);
  try {
    for (const [k, window] of windows.entries()) {
      await loading;
      const steps = await bindings.bind(window.first, window.end);
      loading = load(windows[k + 1]);
      // Awaited by the next turn, or by the cleanup below.
      loading.catch(() => {});
      await runner.add(steps, k === 0 ? run.before : undefined, k === windows.length - 1 ? run.after : undefined);
      await runner.finish();
      drop(window.free);
    }
  } finally {
    stop.abort();
    await loading.catch(() => {});
    await runner.drain();
    drop([...held]);
    bindings.forget('weight');
  }
}
