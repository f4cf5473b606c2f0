// Times functions side by side, for benches: rounds alternate, so that a busy moment hits all of them.
// Prints medians; the machine's noise is in the spread beside them.

/** Median milliseconds of each function over `rounds` alternating rounds, after one that does not count. */
export function medianTimes(functions: Readonly<Record<string, () => void>>, rounds = 11): Record<string, number> {
  const times = Object.fromEntries(Object.keys(functions).map((name) => [name, [] as number[]]));
  for (let round = -1; round < rounds; round++) {
    for (const [name, run] of Object.entries(functions)) {
      const start = performance.now();
      run();
      if (round >= 0) times[name]!.push(performance.now() - start);
    }
  }
  const medians: Record<string, number> = {};
  for (const [name, all] of Object.entries(times)) {
    all.sort((a, b) => a - b);
    medians[name] = all[all.length >> 1]!;
    const [fastest, slowest] = [all[0]!, all[all.length - 1]!];
    console.log(`  ${name.padEnd(20)} ${medians[name].toFixed(2)} ms (${fastest.toFixed(2)} to ${slowest.toFixed(2)})`);
  }
  return medians;
}
