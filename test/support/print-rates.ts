// Prints what a bench measured, each contender beside the first one, its rival: a rate alone says little of another machine.

export interface Measured {
  name: string;
  flops: number;
  /** Milliseconds of each round. */
  times: number[];
}

/** One line a contender: median GFLOP/s, its range, and the median as a multiple of the first contender's. */
export function printRates(contenders: readonly Measured[]): void {
  const medianOf = (times: number[]): number => times.toSorted((a, b) => a - b)[times.length >> 1]!;
  const rate = (flops: number, ms: number): string => (flops / ms / 1e6).toFixed(2);
  const rival = medianOf(contenders[0]!.times);
  for (const { name, flops, times } of contenders) {
    const median = medianOf(times);
    const range = `(${rate(flops, Math.max(...times))} to ${rate(flops, Math.min(...times))})`;
    const ratio = `${(rival / median).toFixed(2)}×`;
    console.log(`  ${name.padEnd(40)} ${rate(flops, median).padStart(9)}  ${ratio.padStart(7)}  ${range}`);
  }
}
