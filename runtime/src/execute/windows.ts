// Cuts a program into windows of weights for the streamed residency.
// Dispatches stay in order; a weight lives from the window of its first use to that of its last.

import type { Program } from '../program/types.ts';

export interface WeightWindow {
  /** Dispatches `[first, end)`. */
  first: number;
  end: number;
  /** Weights first used here. */
  load: number[];
  /** Weights last used here. */
  free: number[];
}

/** Bytes of weights in one window, unless told otherwise. */
export const DEFAULT_WINDOW_BYTES = 256 * 2 ** 20;

/** Each window brings at most `windowBytes` of new weights, or is a single dispatch that needs more. */
export function planWindows(program: Program, windowBytes: number): WeightWindow[] {
  const seen = new Set<number>();
  const windows: WeightWindow[] = [{ first: 0, end: 0, load: [], free: [] }];
  const lastWindow = new Map<number, WeightWindow>();
  let bytes = 0;
  program.dispatches.forEach(({ bindings }, i) => {
    const used = [...new Set(bindings.flatMap(([kind, index]) => (kind === 'weight' ? [index] : [])))];
    const fresh = used.filter((index) => !seen.has(index));
    const freshBytes = fresh.reduce((sum, index) => sum + program.weights[index]!.bytes, 0);
    let window = windows.at(-1)!;
    if (bytes > 0 && freshBytes > 0 && bytes + freshBytes > windowBytes) {
      window = { first: i, end: i, load: [], free: [] };
      windows.push(window);
      bytes = 0;
    }
    bytes += freshBytes;
    window.end = i + 1;
    window.load.push(...fresh);
    for (const index of fresh) seen.add(index);
    for (const index of used) lastWindow.set(index, window);
  });
  for (const [index, window] of lastWindow) window.free.push(index);
  return windows;
}
