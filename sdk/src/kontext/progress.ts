// How far a request is and how long it will still take, from what its finished slices of work took.
// Rates are measured apart: operations of a convolution say little about those of a matmul, and neither about bytes or kernels.
import { tell } from './tell.ts';
import type { ProgressEvent } from './types.ts';

/** An event without the fields the tracker fills in. */
type Bare<T> = T extends ProgressEvent ? Omit<T, 'progress' | 'remainingMs'> : never;

interface Measured {
  amount: number;
  ms: number;
}

interface Kind {
  planned: number;
  done: number;
  spentMs: number;
  /** The first measurement, apart because it is slow: drivers still compile then. */
  first: Measured;
  /** Those after it, each counting half of the next. */
  recent: Measured;
}

/** Counts one request's work and sends its events. */
export class ProgressTracker {
  readonly #kinds = new Map<string, Kind>();
  #progress = 0;
  /** The least time left that was told since the first step: from then on it never rises. */
  #least: number | undefined;

  constructor(readonly listener: ((event: ProgressEvent) => void) | undefined) {}

  /**
   * Announces work to come.
   *
   * @param kind a unit and a component, such as `run denoise`, `load t5`, `compile clip`
   * @param amount in any unit, the same for all work that starts with the same word
   */
  plan(kind: string, amount: number): void {
    this.#kind(kind).planned += amount;
  }

  /** Records finished work and what it took: a slice of a run, a chunk of weights, a kernel. */
  finish(kind: string, amount: number, elapsedMs: number): void {
    if (amount <= 0) return;
    const entry = this.#kind(kind);
    entry.done += amount;
    entry.spentMs += elapsedMs;
    if (entry.done === amount) entry.first = { amount, ms: elapsedMs };
    const { recent } = entry;
    if (entry.done > amount) entry.recent = { amount: recent.amount / 2 + amount, ms: recent.ms / 2 + elapsedMs };
  }

  send(event: Bare<ProgressEvent>): void {
    if (!this.listener) return;
    const ended = event.type === 'done';
    const remainingMs = ended ? 0 : this.#falling(this.#remainingMs(), event.type === 'step');
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
    const made: Kind = { planned: 0, done: 0, spentMs: 0, first: { amount: 0, ms: 0 }, recent: { amount: 0, ms: 0 } };
    this.#kinds.set(name, made);
    return made;
  }

  #falling(remainingMs: number | undefined, isStep: boolean): number | undefined {
    if (remainingMs === undefined || (this.#least === undefined && !isStep)) return remainingMs;
    this.#least = Math.min(this.#least ?? remainingMs, remainingMs);
    return this.#least;
  }

  /** Unknown while nothing has been measured that most of the work ahead can be told from. */
  #remainingMs(): number | undefined {
    let ms = 0;
    const runs = { known: 0, guessed: 0 };
    for (const [name, { planned, done }] of this.#kinds) {
      if (planned <= done) continue;
      const unit = name.split(' ')[0]!;
      const rate = unit === 'run' ? this.#runRate(name) : this.#unitRate(unit);
      if (rate === undefined) return undefined;
      if (unit === 'run') runs[rate.guessed ? 'guessed' : 'known'] += planned - done;
      ms += (planned - done) * rate.ms;
    }
    const measured = [...this.#kinds.values()].some(({ done }) => done > 0);
    return measured && runs.guessed <= runs.known ? ms : undefined;
  }

  /** A byte is a byte and a kernel a kernel; the first few say more of the start than of the rest. */
  #unitRate(unit: string): { ms: number; guessed?: boolean } | undefined {
    const kinds = this.#ofUnit(unit).map(([, kind]) => kind);
    const total = (of: 'planned' | 'done' | 'spentMs') => kinds.reduce((sum, kind) => sum + kind[of], 0);
    return total('done') >= ENOUGH * total('planned') ? { ms: total('spentMs') / total('done') } : undefined;
  }

  #runRate(name: string): { ms: number; guessed?: boolean } | undefined {
    const { first, recent, planned } = this.#kinds.get(name)!;
    if (recent.amount > 0) return { ms: recent.ms / recent.amount };
    if (first.amount > 0) return { ms: first.ms / first.amount / this.#warmUp() };
    // What is like it, for one run includes its slow start: the other half of the autoencoder.
    const family = /^run [a-z0-9]+-/.exec(name)?.[0];
    const measured = this.#ofUnit('run').filter(([, { done }]) => done > 0);
    const relative = measured.find(([other]) => family && other.startsWith(family))?.[1];
    if (relative) return { ms: relative.spentMs / relative.done };
    // Otherwise the fastest of the other kind, because large matmuls come nearest to the GPU's peak.
    const settled = measured.filter(([other, { recent }]) => recent.amount > 0 && !/^run [a-z0-9]+-/.test(other));
    if (settled.some(([, { done }]) => done >= COMPARABLE * planned)) {
      return { ms: Math.min(...settled.map(([, { recent }]) => recent.ms / recent.amount)) };
    }
    const any = measured.map(([, { spentMs, done }]) => spentMs / done);
    return any.length > 0 ? { ms: Math.min(...any), guessed: true } : undefined;
  }

  /** How many times slower first measurements are than those after them, by the least of the kinds that have both. */
  #warmUp(): number {
    const factors = this.#ofUnit('run').flatMap(([, { first, recent }]) =>
      recent.ms > 0 ? [first.ms / first.amount / (recent.ms / recent.amount)] : [],
    );
    return factors.length > 0 ? Math.max(1, Math.min(...factors)) : 1;
  }

  #ofUnit(unit: string): [string, Kind][] {
    return [...this.#kinds].filter(([name]) => name.startsWith(`${unit} `));
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

/** Share of a unit's work that must be done before its rate is believed. */
const ENOUGH = 0.01;
/** Share of a component's work that others must have done before theirs says something of it: CLIP's 80 ms do not. */
const COMPARABLE = 0.0005;
