// Progress on a terminal: one line that is rewritten, with a bar and the time left.
// Thirty lines instead of a dependency; where the output is no terminal, only the stages are printed.
import type { ProgressEvent } from '../kontext/types.ts';
import { terminalWidth } from './terminal.ts';

const STAGES: Record<string, string> = {
  'encode-image': 'reading the picture',
  'encode-text': 'reading the prompt',
  modulation: 'preparing steps',
  denoise: 'denoising',
  decode: 'decoding',
};

const WIDTH = 24;

/**
 * Draws events on `out`; call `clear` before anything else is printed. Without escape codes: a line is erased by spaces.
 *
 * @param prefix which of several pictures it is about
 */
export function progressLine(
  out: NodeJS.WriteStream,
  prefix = '',
): { show(event: ProgressEvent): void; clear(): void } {
  const columns = terminalWidth();
  let stage = 'starting';
  let detail = '';
  const { write } = statusLine(out);
  return {
    show(event) {
      if (event.type === 'stage') {
        stage = STAGES[event.stage] ?? event.stage;
        detail = '';
        if (columns === undefined) out.write(`${prefix}${stage}\n`);
      } else if (event.type === 'compile') detail = `compiling ${event.component} ${event.done}/${event.total}`;
      else if (event.type === 'load')
        detail = `loading ${event.component} ${megabytes(event.loadedBytes, event.totalBytes)}`;
      else if (event.type === 'step') detail = `step ${event.step}/${event.steps}`;
      if (columns === undefined) return;
      const full = Math.round(event.progress * WIDTH);
      const left = event.remainingMs === undefined ? '' : `, ${duration(event.remainingMs)} left`;
      const line = `${prefix}${'█'.repeat(full)}${'░'.repeat(WIDTH - full)} ${stage}${detail && `: ${detail}`}${left}`;
      write(line);
    },
    clear() {
      write('');
    },
  };
}

/** One line of a terminal that is written over; does nothing where there is none. An empty text erases it. */
export function statusLine(out: NodeJS.WriteStream): { write(text: string): void } {
  const columns = terminalWidth();
  let shown = '';
  return {
    write(text) {
      if (columns === undefined) return;
      const line = text.slice(0, columns - 1);
      if (line === shown) return;
      out.write(`\r${line.padEnd(shown.length)}${line === '' ? '\r' : ''}`);
      shown = line;
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
