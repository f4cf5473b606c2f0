// Tells readers of a job's stream that there is something new: one subscription for the whole process.
// Messages can be lost while Redis restarts, so that readers also look by themselves now and then.
import type { Redis } from 'ioredis';

const LOOK_ANYWAY_MS = 2_000;

/** Wakes those who wait for an id on a channel. */
export class Doorbell {
  readonly #waiting = new Map<string, Set<() => void>>();

  private constructor(private readonly connection: Redis) {}

  /** @param redis is duplicated: a subscribed connection takes no other commands */
  static async listen(redis: Redis, channel: string): Promise<Doorbell> {
    const connection = redis.duplicate({ commandTimeout: undefined });
    connection.on('error', () => {});
    const bell = new Doorbell(connection);
    connection.on('message', (_channel: string, id: string) => {
      for (const wake of [...(bell.#waiting.get(id) ?? [])]) wake();
    });
    await connection.subscribe(channel);
    return bell;
  }

  /** Resolves at the next ring for `id`, after a while, or with the signal. */
  ring(id: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(id) ?? new Set();
      this.#waiting.set(id, waiting);
      const wake = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', wake);
        waiting.delete(wake);
        if (waiting.size === 0 && this.#waiting.get(id) === waiting) this.#waiting.delete(id);
        resolve();
      };
      const timer = setTimeout(wake, LOOK_ANYWAY_MS);
      waiting.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }

  /** Ends the subscription. */
  close(): void {
    this.connection.disconnect();
  }
}
