// Starts the command in a process of its own, so that what Dawn prints about its toggles and limits can be left out.
// Dawn writes such warnings to file descriptor 2 itself; nothing inside the process can stop it, and they say nothing a user can act on.
import { spawn } from 'node:child_process';
import { terminalWidth, WIDTH_VARIABLE } from './terminal.ts';

const CHILD_VARIABLE = 'KONTEXT_LAUNCHED';

/** Whether this process is the launcher's child, or is to do without one: for debugging every word counts. */
export function isLaunched(): boolean {
  return process.env[CHILD_VARIABLE] !== undefined || process.env.KONTEXT_DEBUG !== undefined;
}

/** @param script the file that node was started with. @returns the child's exit code */
export function launch(script: string, args: readonly string[]): Promise<number> {
  const width = terminalWidth();
  const child = spawn(process.execPath, [...process.execArgv, script, ...args], {
    stdio: ['inherit', 'inherit', 'pipe', 'ipc'],
    env: { ...process.env, [CHILD_VARIABLE]: '1', ...(width !== undefined && { [WIDTH_VARIABLE]: String(width) }) },
  });
  const filter = withoutWarnings((text) => process.stderr.write(text));
  child.stderr!.setEncoding('utf8').on('data', filter.push);
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => child.kill(name));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    // 'close' comes after the last of standard error.
    child.once('close', (code, signal) => {
      filter.end();
      resolve(code ?? (signal === 'SIGINT' ? 130 : 1));
    });
  });
}

/**
 * Calls `onStop` at Ctrl-C, at a request to end, and when the launcher is gone; a second Ctrl-C ends the process at once. A
 * terminal sends Ctrl-C to launcher and child both, and the launcher passes its own on: two within a moment are one.
 */
export function onStop(stop: (reason: string) => void): void {
  let first: number | undefined;
  const signalled = (reason: string) => {
    if (first !== undefined && performance.now() - first > 300) process.exit(130);
    if (first === undefined) stop(reason);
    first ??= performance.now();
  };
  process.on('SIGINT', () => signalled('Ctrl-C'));
  process.on('SIGTERM', () => signalled('terminated'));
  process.once('disconnect', () => stop('the launcher ended'));
}

/**
 * Passes text on as it comes, but for whole lines that begin with `Warning: `.
 *
 * @returns `end` passes on what was held back as the beginning of such a line
 */
export function withoutWarnings(pass: (text: string) => void): { push(text: string): void; end(): void } {
  let held = '';
  let lineStart = true;
  const mayBeWarning = (line: string) => 'Warning: '.startsWith(line.slice(0, 9));
  return {
    push(text) {
      let rest = held + text;
      held = '';
      let out = '';
      while (rest !== '') {
        // A progress line is ended by a carriage return.
        const end = rest.search(/[\r\n]/) + 1;
        const line = end === 0 ? rest : rest.slice(0, end);
        if (lineStart && mayBeWarning(line)) {
          if (end === 0) {
            held = line;
            break;
          }
        } else out += line;
        rest = rest.slice(line.length);
        lineStart = end > 0;
      }
      if (out !== '') pass(out);
    },
    end() {
      if (held !== '') pass(held);
      held = '';
    },
  };
}
