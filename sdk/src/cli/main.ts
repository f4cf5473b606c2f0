#!/usr/bin/env node
// The `kontext` command as a process: arguments in, exit code out, a clean stop on Ctrl-C.
// Everything it does is in the SDK too; nothing here is needed to use that.
import { runCommand } from './command.ts';

const cancel = new AbortController();
// The first Ctrl-C stops between two slices of GPU work; the second is the shell's.
process.once('SIGINT', () => cancel.abort(new Error('Ctrl-C')));
process.once('SIGTERM', () => cancel.abort(new Error('terminated')));

const code = await runCommand(process.argv.slice(2), cancel.signal);
// Dawn's threads keep the loop alive although the device is destroyed.
process.exit(code);
