// What the user sees while a command runs: whether there is a terminal, how wide it is, and how to ask.
// Standard error may be a pipe to the launcher, which knows the real terminal and says so (launcher.ts).
import { createInterface } from 'node:readline/promises';

/** Set by the launcher to the terminal's width. */
export const WIDTH_VARIABLE = 'KONTEXT_TERMINAL_WIDTH';

/** Columns of the terminal that standard error ends in; undefined when it ends in none, or in one that cannot move its cursor. */
export function terminalWidth(): number | undefined {
  if (process.env.TERM === 'dumb') return undefined;
  const told = Number(process.env[WIDTH_VARIABLE]);
  if (told > 0) return told;
  return process.stderr.isTTY ? process.stderr.columns || 80 : undefined;
}

/** Whether a question would reach someone. */
export function canAsk(): boolean {
  return process.stdin.isTTY === true && terminalWidth() !== undefined;
}

/** Asks on standard error; anything but y or yes is no. */
export async function ask(question: string, signal: AbortSignal): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await lines.question(`${question} [y/N] `, { signal })).trim());
  } finally {
    lines.close();
  }
}
