// The order in which waiting jobs are served: priority, then clients in turn, then what a warm worker has programs for.
// A pure data structure: no clock, no promises, so that its rules can be tested by themselves.

/** What the order depends on. */
export interface Waiting {
  /** Unique. */
  id: string;
  /** 0 is served first. */
  priority: number;
  /** Served in turn with the others of its priority. */
  client: string;
  /** Equal shapes run the same programs. */
  shape: string;
}

/** How many jobs in a row may be taken for their shape before the client whose turn it is gets served. */
const MAX_SHAPE_STREAK = 4;

/** A bounded queue, fair between clients. */
export class FairQueue<T extends Waiting> {
  /** By priority, clients in the order of their turn, each with its jobs in order. */
  readonly #levels = new Map<number, Map<string, T[]>>();
  #size = 0;
  #streak = 0;

  /** Jobs that wait. */
  get size(): number {
    return this.#size;
  }

  /** Puts a job behind the others of its client. */
  add(job: T): void {
    const level = this.#levels.get(job.priority) ?? new Map<string, T[]>();
    this.#levels.set(job.priority, level);
    const own = level.get(job.client);
    if (own) own.push(job);
    else level.set(job.client, [job]);
    this.#size++;
  }

  /** Takes out the next job. @param warm shape that can begin without compiling */
  next(warm?: string): T | undefined {
    const priority = Math.min(...this.#levels.keys());
    const level = this.#levels.get(priority);
    if (!level) return undefined;
    const [turn] = level.keys();
    let client = turn!;
    if (warm !== undefined && level.get(client)![0]!.shape !== warm && this.#streak < MAX_SHAPE_STREAK) {
      for (const [name, [first]] of level) {
        if (first!.shape !== warm) continue;
        client = name;
        break;
      }
    }
    this.#streak = client === turn ? 0 : this.#streak + 1;
    const job = level.get(client)![0]!;
    this.#remove(job);
    // Whoever was served goes behind the others.
    const rest = level.get(client);
    if (rest) {
      level.delete(client);
      level.set(client, rest);
    }
    return job;
  }

  /** Takes out one job; undefined when it does not wait here. */
  take(id: string): T | undefined {
    for (const job of this) {
      if (job.id !== id) continue;
      this.#remove(job);
      return job;
    }
    return undefined;
  }

  /** All waiting jobs, by priority; within one, client by client. */
  *[Symbol.iterator](): Generator<T> {
    for (const priority of [...this.#levels.keys()].sort((a, b) => a - b)) {
      for (const jobs of this.#levels.get(priority)!.values()) yield* jobs;
    }
  }

  #remove(job: T): void {
    const level = this.#levels.get(job.priority)!;
    const own = level.get(job.client)!;
    own.splice(own.indexOf(job), 1);
    if (own.length === 0) level.delete(job.client);
    if (level.size === 0) this.#levels.delete(job.priority);
    this.#size--;
  }
}
