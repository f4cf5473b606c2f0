// The events of one job in memory: numbered, replayed to whoever comes late, then live.
// Progress is the only kind there can be many of; only its newest is kept for replay.
import type { JobEvent, JobEventBody } from './types.ts';

/** Events of a job, until its outcome. */
export class JobLog {
  readonly #events: JobEvent[] = [];
  readonly #wakes = new Set<() => void>();
  #seq = 0;

  /** Ignored after the outcome, which is the last event. */
  push(body: JobEventBody): void {
    if (this.ended) return;
    const event: JobEvent = { ...body, seq: ++this.#seq };
    if (event.type === 'progress' && this.#events.at(-1)?.type === 'progress') this.#events.pop();
    this.#events.push(event);
    for (const wake of [...this.#wakes]) wake();
  }

  /** Whether the outcome is known. */
  get ended(): boolean {
    const last = this.#events.at(-1)?.type;
    return last === 'done' || last === 'failed' || last === 'cancelled';
  }

  /** The newest event. */
  get last(): JobEvent | undefined {
    return this.#events.at(-1);
  }

  /** Events after number `after`, live ones included, until the outcome or the signal. */
  async *read(after: number, signal: AbortSignal): AsyncGenerator<JobEvent, void, void> {
    let seen = after;
    while (!signal.aborted) {
      const fresh = this.#events.filter(({ seq }) => seq > seen);
      for (const event of fresh) {
        yield event;
        seen = event.seq;
      }
      if (this.ended && (this.last?.seq ?? 0) <= seen) return;
      if (fresh.length === 0) await this.#change(signal);
    }
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#wakes.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#wakes.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }
}
