// Progress over bytes on a terminal: one line with amount, rate and time left. Silent where the output is no terminal.
import { duration } from './progress-line.ts';

/** Rates of the last while count, not of the whole. */
const REMEMBERED_MS = 10_000;

/** Call `clear` before anything else is printed. */
export function byteProgress(out: NodeJS.WriteStream, doing: string) {
  const samples: [time: number, bytes: number][] = [];
  let last = 0;
  return {
    show({ file, bytes, totalBytes }: { file: string; bytes: number; totalBytes: number }): void {
      const now = performance.now();
      if (!out.isTTY || now - last < 100) return;
      last = now;
      samples.push([now, bytes]);
      while (samples.length > 2 && now - samples[0]![0] > REMEMBERED_MS) samples.shift();
      const [since, before] = samples[0]!;
      const rate = ((bytes - before) / (now - since || 1)) * 1000;
      const left =
        rate > 0 ? `, ${(rate / 1e6).toFixed(1)} MB/s, ${duration(((totalBytes - bytes) / rate) * 1000)} left` : '';
      const line = `${doing} ${file}: ${(bytes / 1e6).toFixed(0)}/${(totalBytes / 1e6).toFixed(0)} MB${left}`;
      out.write(`\r\x1b[2K${line.slice(0, (out.columns || 80) - 1)}`);
    },
    clear(): void {
      if (out.isTTY && samples.length > 0) out.write('\r\x1b[2K');
    },
  };
}
