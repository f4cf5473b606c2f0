// Scratch memory that all programs of an engine share, and the lock that makes sharing right.
// Slab contents do not survive a run, so programs that never run at once need only the largest set.

import { abortedError, throwIfAborted } from '../errors.ts';
import { type KontextDevice, paddedBytes } from '../gpu/device.ts';
import { BufferUsage } from '../gpu/flags.ts';

/** Copies are for whoever looks for values that are not finite. */
const SLAB_USAGE = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST;

export class SlabPool {
  /** Changes whenever buffers are replaced; bind groups made before are then stale. */
  version = 0;
  private readonly users = new Set<{ sizes: readonly number[] }>();
  /** Largest first. */
  private slabs: GPUBuffer[] = [];
  private lastHolder: Promise<void> = Promise.resolve();

  constructor(readonly gpu: KontextDevice) {}

  /** Bytes now allocated. */
  get bytes(): number {
    return this.slabs.reduce((sum, slab) => sum + slab.size, 0);
  }

  /** Counts a program's slabs in, from the next {@link ensure} on; call the result to count them out. */
  join(sizes: readonly number[]): () => void {
    const user = { sizes };
    this.users.add(user);
    return () => {
      this.users.delete(user);
      if (this.users.size === 0) this.freeAll();
    };
  }

  /** Waits for the program that runs now. Call the result when the GPU has finished. */
  async lock(signal?: AbortSignal): Promise<() => void> {
    throwIfAborted(signal);
    const previous = this.lastHolder;
    let release: () => void = () => {};
    this.lastHolder = new Promise((resolve) => {
      release = resolve;
    });
    if (!(await waitOrAbort(previous, signal))) {
      // Our turn still has to come and go before the next holder's.
      previous.then(release);
      throw abortedError(signal);
    }
    return release;
  }

  /** Makes every slab as large as the largest user wants, no larger; only under the lock. */
  async ensure(): Promise<void> {
    const wanted: number[] = [];
    for (const { sizes } of this.users) {
      [...sizes]
        .sort((a, b) => b - a)
        .forEach((size, rank) => {
          wanted[rank] = Math.max(wanted[rank] ?? 0, size);
        });
    }
    for (const [rank, size] of wanted.entries()) {
      const old = this.slabs[rank];
      if (old && old.size === paddedBytes(size)) continue;
      this.version++;
      // Freed first: both at once could be too much.
      if (old) this.gpu.free(old);
      try {
        this.slabs[rank] = await this.gpu.allocate(`slab ${rank}`, size, SLAB_USAGE);
      } catch (error) {
        this.freeAll();
        throw error;
      }
    }
    for (const unused of this.slabs.splice(wanted.length)) this.gpu.free(unused);
  }

  /** The buffers for a program's slabs, in its order: its k-th largest is the pool's k-th largest. */
  buffersFor(sizes: readonly number[]): GPUBuffer[] {
    const bySize = sizes.map((_, i) => i).sort((a, b) => sizes[b]! - sizes[a]!);
    const buffers: GPUBuffer[] = new Array(sizes.length);
    bySize.forEach((index, rank) => {
      buffers[index] = this.slabs[rank]!;
    });
    return buffers;
  }

  private freeAll(): void {
    for (const slab of this.slabs) if (slab) this.gpu.free(slab);
    this.slabs = [];
    this.version++;
  }
}

function waitOrAbort(turn: Promise<void>, signal: AbortSignal | undefined): Promise<boolean> {
  if (!signal) return turn.then(() => true);
  return new Promise((resolve) => {
    const onAbort = () => resolve(false);
    signal.addEventListener('abort', onAbort, { once: true });
    turn.then(() => {
      signal.removeEventListener('abort', onAbort);
      resolve(true);
    });
  });
}
