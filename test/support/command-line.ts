// A command line run in this process; what it prints is kept.
import { vi } from 'vitest';
import { runCommand } from '../../sdk/src/cli/command.ts';

export async function commandLine(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const out = vi.spyOn(console, 'log').mockImplementation(() => {});
  const err = vi.spyOn(console, 'error').mockImplementation(() => {});
  const printed = ({ mock }: typeof out) => mock.calls.flat().join('\n');
  try {
    const code = await runCommand(args, new AbortController().signal);
    return { code, out: printed(out), err: printed(err) };
  } finally {
    out.mockRestore();
    err.mockRestore();
  }
}
