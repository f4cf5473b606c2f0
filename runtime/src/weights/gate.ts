// A gate that lets work in while a byte budget lasts, first come first served.
// It bounds host memory while hundreds of weights load at once.

export class Gate {
  private used = 0;
  private readonly waiting: { bytes: number; go: () => void }[] = [];

  constructor(private readonly budget: number) {}

  /** True when nothing is inside or waiting. */
  get idle(): boolean {
    return this.used === 0 && this.waiting.length === 0;
  }

  /** Waits for room; call the result when done. Work larger than the budget goes in alone. */
  async enter(bytes: number): Promise<() => void> {
    if (this.waiting.length > 0 || !this.fits(bytes)) {
      await new Promise<void>((go) => this.waiting.push({ bytes, go }));
    } else {
      this.used += bytes;
    }
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.used -= bytes;
      this.admit();
    };
  }

  private fits(bytes: number): boolean {
    return this.used === 0 || this.used + bytes <= this.budget;
  }

  private admit(): void {
    while (this.waiting.length > 0 && this.fits(this.waiting[0]!.bytes)) {
      const { bytes, go } = this.waiting.shift()!;
      this.used += bytes;
      go();
    }
  }
}
