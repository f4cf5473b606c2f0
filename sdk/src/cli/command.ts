// Runs one command line: picks the subcommand, turns errors into messages and exit codes.
// Apart from the process itself, so that tests run it without one.
import { KontextError, type KontextErrorCode } from '../../../runtime/src/errors.ts';
import { helpText, parseArguments } from './arguments.ts';
import { compileCommand } from './compile.ts';
import { doctor } from './doctor.ts';
import { inspectCommand } from './inspect.ts';
import { runRequest } from './run.ts';
import { targetsCommand } from './targets.ts';

/**
 * @param args without node and script
 * @returns the exit code; what went wrong is on standard error
 */
export async function runCommand(args: readonly string[], signal: AbortSignal): Promise<number> {
  try {
    const bundling = BUNDLING[args[0] ?? ''];
    if (bundling && !args.includes('--help')) {
      await bundling(args.slice(1));
      return 0;
    }
    const parsed = parseArguments(bundling ? [] : args);
    if (!parsed) process.stdout.write(helpText());
    else if (parsed.command === 'doctor') await doctor(parsed);
    else await runRequest(parsed, signal);
    return 0;
  } catch (error) {
    if (!(error instanceof KontextError)) throw error;
    const json = args.includes('--json');
    console.error(json ? JSON.stringify({ error: error.toJSON() }) : `kontext: ${error.message}`);
    return EXIT_CODES[error.code] ?? 1;
  }
}

/** Commands about bundles: their options have nothing in common with those of requests. */
const BUNDLING: Record<string, (args: readonly string[]) => Promise<void>> = {
  compile: compileCommand,
  targets: targetsCommand,
  inspect: inspectCommand,
};

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
