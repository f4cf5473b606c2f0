// Predicts how long dispatches take, and learns from how long they took.
// A slice must be short enough to keep a page alive and far from a GPU watchdog (2 s), long enough to hide its submission.

/** What a slice should take. */
export const SLICE_MS = 100;

/** Of a slow phone; the first slice is then too short rather than too long, and the next is right. */
const FIRST_GUESS = { flopsPerMs: 2e7, bytesPerMs: 1e7, dispatchMs: 0.02 };

/** A bad measurement (another tab's work, a clock step) may not move the estimate further than this at once. */
const LARGEST_STEP = 32;

export class Pace {
  constructor(
    /** Measured over predicted time. */
    private scale = 1,
  ) {}

  /** Milliseconds that a dispatch will take. */
  predict({ flops, bytes }: { flops: number; bytes: number }): number {
    return this.scale * cost(flops, bytes);
  }

  /** Takes note that work predicted at `predictedMs` took `measuredMs`. */
  learn(predictedMs: number, measuredMs: number): void {
    if (!(predictedMs > 0) || !(measuredMs > 0)) return;
    // Of so short a slice most is the way to the GPU and back, which says nothing about longer ones.
    if (measuredMs > predictedMs && measuredMs < SLICE_MS / 10) return;
    const ratio = Math.min(LARGEST_STEP, Math.max(1 / LARGEST_STEP, measuredMs / predictedMs));
    // Slower is believed at once, faster half-way: a slice that is too long hurts more than one too short.
    this.scale *= ratio > 1 ? ratio : Math.sqrt(ratio);
  }

  /** An estimate to start another program on the same device with. */
  copy(): Pace {
    return new Pace(this.scale);
  }
}

const cost = (flops: number, bytes: number): number =>
  Math.max(flops / FIRST_GUESS.flopsPerMs, bytes / FIRST_GUESS.bytesPerMs) + FIRST_GUESS.dispatchMs;
