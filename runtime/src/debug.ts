// The debug knob: KONTEXT_DEBUG=plan,wgsl,submit,clipped,tune, from the environment or `globalThis.KONTEXT_DEBUG`.
// Printing data beats a debugger for work that happens on a GPU.

/**
 * - `plan`: buffers and bytes of each program when it is bound;
 * - `wgsl`: the text of each kernel when its pipeline is created;
 * - `submit`: a table of times, GFLOP/s and GB/s per dispatch label after each run (needs `timestamp-query`);
 * - `clipped`: runs dispatch by dispatch and prints how many values each kind of layer clipped to f16's range (slow);
 * - `tune`: why tuning in idle time stopped.
 */
export type DebugTopic = 'plan' | 'wgsl' | 'submit' | 'clipped' | 'tune';

interface DebugGlobals {
  KONTEXT_DEBUG?: string;
  process?: { env?: Record<string, string | undefined> };
}

/** Read at every call, so a page can switch it on from its console. */
export function debugEnabled(topic: DebugTopic): boolean {
  const globals = globalThis as DebugGlobals;
  const topics = globals.KONTEXT_DEBUG ?? globals.process?.env?.KONTEXT_DEBUG ?? '';
  return topics.split(',').includes(topic);
}

/** Prints on standard error, so that a program's own output stays clean. */
export function debugPrint(text: string): void {
  console.error(text);
}
