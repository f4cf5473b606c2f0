// What a process holds of the system, for tests that nothing is left behind: threads, descriptors, memory.
// Read from /proc, so Linux only; collects garbage first, because what only awaits collection is no leak.
import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export const hasProc = process.platform === 'linux';

let collect: (() => void) | undefined;

/** A full garbage collection, twice with a pause between: native objects are freed by finalizers that run in the next turn. */
export async function collectGarbage(): Promise<void> {
  setFlagsFromString('--expose-gc');
  collect ??= runInNewContext('gc') as () => void;
  for (let i = 0; i < 3; i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export interface ProcessUse {
  threads: number;
  /** Open descriptors of files on disk; sockets, pipes and devices come and go by themselves. */
  files: string[];
  /** Resident memory. */
  bytes: number;
}

export async function processUse(): Promise<ProcessUse> {
  await collectGarbage();
  const status = readFileSync('/proc/self/status', 'utf8');
  return {
    threads: Number(/Threads:\s+(\d+)/.exec(status)![1]),
    files: openFiles(),
    bytes: process.memoryUsage().rss,
  };
}

/** Paths of the regular files that are open, each as often as it is. */
export function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((descriptor) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${descriptor}`);
      return path.startsWith('/') && statSync(path).isFile() ? [path] : [];
    } catch {
      return [];
    }
  });
}
