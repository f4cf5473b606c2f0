// How far a request is and how long it will still take.
// Each kind of work (a component's runs, a component's loading) has its own measured rate: operations of a convolution say
// little about those of a matmul, and neither about bytes.
import { tell } from './tell.ts';
import type { ProgressEvent } from './types.ts';

/** An event without the fields the tracker fills in. */
type Bare<T> = T extends ProgressEvent ? Omit<T, 'progress' | 'remainingMs'> : never;

interface Kind {
  planned: number;
  done: number;
  spentMs: number;
  /** Milliseconds a unit, the newest measurement counting half: first runs are slow, drivers still compile then. */
  rate: number | undefined;
}

/** Counts one request's work and sends its events. */
export class ProgressTracker {
  readonly #kinds = new Map<string, Kind>();
  #progress = 0;

  constructor(readonly listener: ((event: ProgressEvent) => void) | undefined) {}

  /**
   * Announces work to come.
   *
   * @param kind name of a rate, such as `run denoise`
   * @param amount in any unit, the same for all work that starts with the same word
   */
  plan(kind: string, amount: number): void {
    this.#kind(kind).planned += amount;
  }

  /** Records finished work and what it took. */
  finish(kind: string, amount: number, elapsedMs: number): void {
    if (amount <= 0) return;
    const entry = this.#kind(kind);
    entry.done += amount;
    entry.spentMs += elapsedMs;
    const rate = elapsedMs / amount;
    entry.rate = entry.rate === undefined ? rate : (entry.rate + rate) / 2;
  }

  send(event: Bare<ProgressEvent>): void {
    if (!this.listener) return;
    const ended = event.type === 'done';
    const remainingMs = ended ? 0 : this.#remainingMs();
    this.#progress = ended ? 1 : Math.max(this.#progress, this.#share(remainingMs));
    tell('onProgress', this.listener, {
      ...event,
      progress: this.#progress,
      ...(remainingMs === undefined ? {} : { remainingMs }),
    } as ProgressEvent);
  }

  #kind(name: string): Kind {
    const known = this.#kinds.get(name);
    if (known) return known;
    const made: Kind = { planned: 0, done: 0, spentMs: 0, rate: undefined };
    this.#kinds.set(name, made);
    return made;
  }

  /** Time left by the measured rates; kinds without one get that of their unit. Unknown while a unit has none. */
  #remainingMs(): number | undefined {
    let sum = 0;
    let measured = false;
    for (const [name, { planned, done, rate }] of this.#kinds) {
      measured ||= rate !== undefined;
      if (planned <= done) continue;
      const unitRate = rate ?? this.#rateOfUnit(name);
      if (unitRate === undefined) return undefined;
      sum += (planned - done) * unitRate;
    }
    return measured ? sum : undefined;
  }

  #rateOfUnit(name: string): number | undefined {
    const unit = name.split(' ')[0];
    let [done, spentMs] = [0, 0];
    for (const [other, kind] of this.#kinds) {
      if (other.split(' ')[0] !== unit) continue;
      done += kind.done;
      spentMs += kind.spentMs;
    }
    return done > 0 ? spentMs / done : undefined;
  }

  #share(remainingMs: number | undefined): number {
    let [spent, shares, kinds] = [0, 0, 0];
    for (const { planned, done, spentMs } of this.#kinds.values()) {
      spent += spentMs;
      shares += planned > 0 ? Math.min(1, done / planned) : 1;
      kinds++;
    }
    // Before rates are known all kinds count alike.
    const share = remainingMs === undefined ? shares / Math.max(1, kinds) : spent / Math.max(1e-9, spent + remainingMs);
    return Math.min(0.999, share);
  }
}
