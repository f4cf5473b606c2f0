// One request at a time: the GPU's memory is planned for one, and two would only slow each other down.
import { abortedError, asKontextError, KontextError } from '../../../runtime/src/errors.ts';

/** Runs tasks one after the other in the order they came. */
export class Queue {
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #closing = new AbortController();

  /** Fires when the queue is closed; running tasks listen to it. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * @param task gets a signal that fires with the caller's `signal` and when the queue closes
   * @param onQueued told the number of tasks ahead, when there are any
   * @throws KontextError `aborted` when `signal` fires first, `closed` after {@link close}
   */
  run<T>(
    task: (signal: AbortSignal) => Promise<T>,
    signal?: AbortSignal,
    onQueued?: (ahead: number) => void,
  ): Promise<T> {
    if (this.closed.aborted) return Promise.reject(closedError());
    if (signal?.aborted) return Promise.reject(abortedError(signal));
    if (this.#waiting > 0) onQueued?.(this.#waiting);
    this.#waiting++;
    const turn = this.#tail;
    const { joined, release } = join(signal, this.closed);
    const result = (async () => {
      try {
        await Promise.race([turn, fired(joined)]);
        if (joined.aborted) throw abortedError(joined);
        return await task(joined);
      } catch (error) {
        if (this.closed.aborted) throw closedError();
        throw joined.aborted ? abortedError(joined) : asKontextError(error);
      } finally {
        this.#waiting--;
        release();
      }
    })();
    // The next task waits for this one and for those before it, even when this one gave up while waiting.
    this.#tail = Promise.allSettled([turn, result]);
    return result;
  }

  /** Rejects what waits, cancels what runs, and resolves when it has stopped. */
  async close(): Promise<void> {
    this.#closing.abort(closedError());
    await this.#tail;
  }
}

function closedError(): KontextError {
  return new KontextError('closed', 'This model was closed. Load it again with Kontext.load().');
}

/** Like `AbortSignal.any`, which Node 20.0 to 20.2 and Safari before 17.4 lack, and with listeners that are removed again. */
function join(...signals: (AbortSignal | undefined)[]): { joined: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const listeners = signals.flatMap((signal) => {
    if (!signal) return [];
    const listener = () => controller.abort(signal.reason);
    if (signal.aborted) listener();
    signal.addEventListener('abort', listener, { once: true });
    return [() => signal.removeEventListener('abort', listener)];
  });
  return {
    joined: controller.signal,
    release: () => {
      for (const remove of listeners) remove();
    },
  };
}

function fired(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
