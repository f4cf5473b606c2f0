// Waits that end at once when they are cancelled, whatever the thing waited for does with its signal.
// A server, a `fetch` or a source of an app's own may never settle; nothing of ours may hang with it.
import { abortedError, KontextError, throwIfAborted } from '../errors.ts';

/** `work`, or `aborted` as soon as the signal fires; then `work` is left to itself and its outcome is dropped. */
export async function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  let forget = () => {};
  const cancelled = new Promise<never>((_, reject) => {
    const leave = () => reject(abortedError(signal));
    if (signal.aborted) leave();
    else forget = onAbort(signal, leave);
  });
  try {
    return await Promise.race([work, cancelled]);
  } finally {
    forget();
    // The loser of the race must not become an unhandled rejection.
    work.catch(() => {});
  }
}

const waiting = new WeakMap<AbortSignal, { calls: Set<() => void>; listener: () => void }>();

/** One listener a signal, however many wait on it: Node warns of more than ten. @returns a function that takes `call` off again */
function onAbort(signal: AbortSignal, call: () => void): () => void {
  let entry = waiting.get(signal);
  if (!entry) {
    const calls = new Set<() => void>();
    entry = {
      calls,
      listener: () => {
        for (const one of [...calls]) one();
      },
    };
    waiting.set(signal, entry);
    signal.addEventListener('abort', entry.listener, { once: true });
  }
  const { calls, listener } = entry;
  calls.add(call);
  return () => {
    calls.delete(call);
    if (calls.size > 0 || waiting.get(signal)?.calls !== calls) return;
    waiting.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}

/** Waits; rejects with `aborted` the moment the signal fires. */
export async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  throwIfAborted(signal);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const elapsed = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  try {
    await abortable(elapsed, signal);
  } finally {
    clearTimeout(timer);
  }
}

/** Ends work that makes no progress; {@link StallGuard.touch} tells it of progress. */
export interface StallGuard {
  /** Fires with the caller's signal, or when nothing happened for the time. */
  readonly signal: AbortSignal;
  /** Something arrived: the time starts anew. */
  touch(): void;
  /** Work that ignores the signal is left behind. @throws {@link Stalled}; KontextError `aborted` */
  watch<T>(work: Promise<T>): Promise<T>;
  /** Call when done: stops the clock. */
  end(): void;
}

/** Nothing arrived for too long. */
export class Stalled extends Error {}

/** @param stallMs milliseconds without a `touch` until the guard fires */
export function stallGuard(stallMs: number, caller: AbortSignal | undefined): StallGuard {
  const stop = new AbortController();
  const signal = caller ? AbortSignal.any([caller, stop.signal]) : stop.signal;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const touch = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(new Stalled(`nothing arrived for ${stallMs / 1000} s`)), stallMs);
  };
  touch();
  return {
    signal,
    touch,
    async watch(work) {
      try {
        return await abortable(work, signal);
      } catch (error) {
        if (caller?.aborted) throw abortedError(caller);
        if (stop.signal.aborted && !(error instanceof KontextError && error.code !== 'aborted')) {
          throw stop.signal.reason as Stalled;
        }
        throw error;
      }
    },
    end: () => clearTimeout(timer),
  };
}
