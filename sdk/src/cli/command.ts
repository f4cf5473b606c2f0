// Runs one command line: picks the command, turns errors into messages and exit codes.
// Apart from the process itself, so that tests run it without one.
import manifest from '../../../package.json' with { type: 'json' };
import { KontextError, type KontextErrorCode } from '../../../runtime/src/errors.ts';
import { didYouMean } from '../kontext/nearest.ts';
import { COMMANDS } from './commands.ts';
import { parseWords, usage } from './grammar.ts';
import { commandHelp, helpText } from './help.ts';

/**
 * @param args without node and script
 * @returns the exit code; what went wrong is on standard error
 */
export async function runCommand(args: readonly string[], signal: AbortSignal): Promise<number> {
  try {
    await dispatch(args, signal);
    return 0;
  } catch (error) {
    if (!(error instanceof KontextError)) throw error;
    const json = args.includes('--json');
    console.error(json ? JSON.stringify({ error: error.toJSON() }) : `kontext: ${error.message}`);
    return EXIT_CODES[error.code] ?? 1;
  }
}

async function dispatch(args: readonly string[], signal: AbortSignal): Promise<void> {
  const [first, ...rest] = args;
  if (first !== undefined && ['version', '--version', '-v'].includes(first)) {
    console.log(manifest.version);
    return;
  }
  const asksHelp = first === undefined || ['help', '--help', '-h'].includes(first);
  const name = asksHelp ? rest[0] : first;
  if (name === undefined || name.startsWith('-')) {
    process.stdout.write(await helpText());
    return;
  }
  if (!Object.hasOwn(COMMANDS, name)) {
    const known = Object.keys(COMMANDS);
    throw usage(`There is no command "${name}".${didYouMean(name, known)} Commands: ${known.join(', ')}.`);
  }
  const command = await COMMANDS[name]!();
  const line = asksHelp ? undefined : parseWords(name, command.flags, rest);
  if (line) await command.run({ ...line, signal });
  else process.stdout.write(commandHelp(name, command));
}

/** Exit codes by error; scripts branch on them, so they stay. */
const EXIT_CODES: Partial<Record<KontextErrorCode, number>> = {
  'invalid-request': 2,
  'image-invalid': 2,
  'webgpu-unavailable': 3,
  'feature-missing': 3,
  'limit-too-small': 3,
  'out-of-memory': 3,
  'device-lost': 3,
  'download-failed': 4,
  'weights-invalid': 4,
  'tokenizer-invalid': 4,
  aborted: 130,
};
