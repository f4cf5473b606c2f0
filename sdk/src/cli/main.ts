#!/usr/bin/env node
// The `kontext` command as a process: arguments in, exit code out, a clean stop on Ctrl-C.
// Everything it does is in the SDK too; nothing here is needed to use that.
import { isLaunched, launch, onStop } from './launcher.ts';

const [, script = '', ...args] = process.argv;
process.exit(isLaunched() ? await run() : await launch(script, args));

async function run(): Promise<number> {
  const cancel = new AbortController();
  // The first Ctrl-C stops between two slices of GPU work.
  onStop((reason) => cancel.abort(new Error(reason)));
  const { runCommand } = await import('./command.ts');
  // Dawn's threads keep the loop alive although the device is destroyed, so the caller ends the process.
  return runCommand(args, cancel.signal);
}
