// Progress on a terminal: one line that is rewritten, with a bar and the time left.
// Thirty lines instead of a dependency; where the output is no terminal, only the stages are printed.
import type { ProgressEvent } from '../kontext/types.ts';

const STAGES: Record<string, string> = {
  'encode-image': 'reading the picture',
  'encode-text': 'reading the prompt',
  modulation: 'preparing steps',
  denoise: 'denoising',
  decode: 'decoding',
};

const WIDTH = 24;

/** Draws events on `out`; call the second function before anything else is printed. */
export function progressLine(out: NodeJS.WriteStream): { show(event: ProgressEvent): void; clear(): void } {
  let stage = 'starting';
  let detail = '';
  let shown = '';
  const write = (line: string) => {
    if (line === shown) return;
    out.write(`\r\x1b[2K${line}`);
    shown = line;
  };
  return {
    show(event) {
      if (event.type === 'stage') {
        stage = STAGES[event.stage] ?? event.stage;
        detail = '';
        if (!out.isTTY) out.write(`${stage}\n`);
      } else if (event.type === 'compile') detail = `compiling ${event.component} ${event.done}/${event.total}`;
      else if (event.type === 'load')
        detail = `loading ${event.component} ${megabytes(event.loadedBytes, event.totalBytes)}`;
      else if (event.type === 'step') detail = `step ${event.step}/${event.steps}`;
      if (!out.isTTY) return;
      const full = Math.round(event.progress * WIDTH);
      const left = event.remainingMs === undefined ? '' : `, ${duration(event.remainingMs)} left`;
      const line = `${'█'.repeat(full)}${'░'.repeat(WIDTH - full)} ${stage}${detail && `: ${detail}`}${left}`;
      write(line.slice(0, (out.columns || 80) - 1));
    },
    clear() {
      if (out.isTTY && shown) write('');
    },
  };
}

/** `2 s`, `1 min 05 s`. */
export function duration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 60) return `${seconds} s`;
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`;
}

function megabytes(done: number, total: number): string {
  return `${(done / 1e6).toFixed(0)}/${(total / 1e6).toFixed(0)} MB`;
}
