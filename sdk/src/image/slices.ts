// Long work of one thread in slices, so that timers, sockets and aborts are heard in between.
import { throwIfAborted } from '../../../runtime/src/errors.ts';

/** Short enough that a page keeps its frames and a server its answers, long enough that the turns cost nothing. */
const SLICE_MS = 8;

/**
 * @returns to be awaited often: gives the event loop a turn when the slice is used up, and at once otherwise
 * @throws KontextError `aborted` from the returned function when `signal` has fired
 */
export function breather(signal?: AbortSignal): () => Promise<void> | undefined {
  let end = performance.now() + SLICE_MS;
  return () => {
    if (performance.now() < end) return undefined;
    return turn().then(() => {
      throwIfAborted(signal);
      end = performance.now() + SLICE_MS;
    });
  };
}

/** A task, not a microtask: what came in meanwhile is served first. Not `setTimeout`, which waits 4 ms in pages. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === 'function') {
      setImmediate(resolve);
      return;
    }
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
