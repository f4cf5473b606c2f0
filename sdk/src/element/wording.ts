// Says in words what an edit is doing and how long it will still take.
// A stage's name is announced once; counts and time left stand beside it and change without being read aloud.
import type { ProgressEvent } from '../kontext/types.ts';
import type { KontextEditorStrings, LoadedPart } from './strings.ts';

/** What to show: `message` when something new begins, `detail` with every event. */
export interface Wording {
  /** A sentence for the status line; absent while the stage goes on. */
  message?: string;
  /** Counts and time left; empty when neither is known. */
  detail: string;
}

/** The words for an event of a running edit. */
export function wordingOf(event: ProgressEvent, strings: KontextEditorStrings): Wording {
  const left = event.remainingMs === undefined ? '' : timeLeft(event.remainingMs, strings);
  const join = (count: string) => [count, left].filter((text) => text !== '').join(' · ');
  switch (event.type) {
    case 'queued':
      return { message: strings.queued(event.ahead), detail: '' };
    case 'stage':
      return { message: strings.stages[event.stage], detail: join('') };
    case 'compile':
      return { detail: join(strings.compiling(event.done, event.total)) };
    case 'load': {
      const [loaded, total] = [event.loadedBytes, event.totalBytes].map((bytes) =>
        size(bytes, event.totalBytes, strings),
      );
      return { detail: join(strings.loading(PARTS[event.component] ?? 'painting', loaded!, total!)) };
    }
    case 'step':
      return { detail: join(strings.step(event.step, event.steps)) };
    default:
      return { detail: join('') };
  }
}

const PARTS: Record<string, LoadedPart> = {
  clip: 'text',
  t5: 'text',
  'vae-encode': 'picture',
  'vae-decode': 'picture',
  'preview-decode': 'picture',
};

/** Rounded so that it does not flicker: to 5 seconds, above a minute to 10. */
function timeLeft(ms: number, strings: KontextEditorStrings): string {
  const seconds = ms / 1000;
  const step = seconds < 60 ? 5 : 10;
  return strings.left(Math.max(1, Math.round(seconds / step) * step));
}

/** Both sizes of a pair in the unit of the larger. */
function size(bytes: number, total: number, { locale }: KontextEditorStrings): string {
  const [unit, bytesEach] = total >= 1e9 ? ['gigabyte', 1e9] : ['megabyte', 1e6];
  const digits = total >= 1e9 ? 1 : 0;
  return new Intl.NumberFormat(locale, {
    style: 'unit',
    unit: unit as string,
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }).format(bytes / (bytesEach as number));
}
