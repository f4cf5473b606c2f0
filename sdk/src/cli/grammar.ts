// The command line's grammar: what a command is, and how its words and flags are read.
// A command is one file that calls `defineCommand` and one row in commands.ts; help is made from what it says here.
import { parseArgs } from 'node:util';
import { KontextError } from '../../../runtime/src/errors.ts';
import { didYouMean } from '../kontext/nearest.ts';

/** One `--name`. */
export interface Flag {
  /** Placeholder of the value; absent for switches. */
  value?: string;
  /** One letter. */
  short?: string;
  /** May be given several times. */
  list?: true;
  /** May stand without a value, which then is this one: wherever the next word does not look like a value of it. */
  bare?: { value: string; unless: RegExp };
  /** What it does, in one line. */
  help: string;
}

/** Flags by name. */
export type Flags = Readonly<Record<string, Flag>>;

/** What was given for each flag. */
export type FlagValues<F extends Flags> = {
  [Name in keyof F]?: F[Name] extends { list: true } ? string[] : F[Name] extends { value: string } ? string : boolean;
};

/** What a command is given. */
export interface CommandLine<F extends Flags = Flags> {
  /** Positional arguments after the command. */
  words: string[];
  values: FlagValues<F>;
  /** Fires on Ctrl-C. */
  signal: AbortSignal;
}

export interface Command<F extends Flags = Flags> {
  /** What it does, in one line. */
  summary: string;
  /** What follows the command's name, a line for each form. */
  usage: readonly string[];
  /** Whole lines that work as they are, but for the names of files. */
  examples: readonly string[];
  /** What else a user should know, below the flags. */
  notes?: string;
  flags: F;
  /** @throws KontextError, whose code becomes the exit code */
  run(line: CommandLine<F>): Promise<void>;
}

/** Gives `run` the types of the flags. */
export function defineCommand<const F extends Flags>(command: Command<F>): Command<F> {
  return command;
}

/** Flags that every command takes. */
export const COMMON_FLAGS = {
  help: { short: 'h', help: 'this text' },
} as const satisfies Flags;

/**
 * @param args what follows the command's name
 * @returns undefined when help was asked for
 * @throws KontextError `invalid-request` for an unknown flag, with the nearest known one, or one without its value
 */
export function parseWords(
  name: string,
  flags: Flags,
  args: readonly string[],
): Omit<CommandLine, 'signal'> | undefined {
  const known = { ...flags, ...COMMON_FLAGS };
  const options = Object.fromEntries(
    Object.entries<Flag>(known).map(([flag, { value, short, list }]) => [
      flag,
      {
        type: value === undefined ? ('boolean' as const) : ('string' as const),
        ...(short !== undefined && { short }),
        ...(list && { multiple: true }),
      },
    ]),
  );
  const given = withBareFlags(withNegativeNumbers(args), known);
  if (beforeDashes(given).some((arg) => arg === '--help' || arg === '-h')) return undefined;
  for (const arg of beforeDashes(given)) {
    const flag = /^--([^=]+)/.exec(arg)?.[1];
    if (flag === undefined || Object.hasOwn(known, flag)) continue;
    const hint = didYouMean(
      `--${flag}`,
      Object.keys(known).map((one) => `--${one}`),
    );
    throw usage(`kontext ${name} has no --${flag}.${hint || ` See kontext ${name} --help.`}`);
  }
  try {
    const { values, positionals } = parseArgs({ args: given, options, allowPositionals: true });
    return { words: positionals, values: values as CommandLine['values'] };
  } catch (cause) {
    throw usage(`${(cause as Error).message.split('\n')[0]} See kontext ${name} --help.`);
  }
}

/** A mistake on the command line. */
export function usage(message: string): KontextError {
  return new KontextError('invalid-request', message);
}

/** What comes after `--` is words, whatever it looks like. */
function beforeDashes(args: readonly string[]): readonly string[] {
  const end = args.indexOf('--');
  return end < 0 ? args : args.slice(0, end);
}

/** Gives flags that may stand alone their value, because Node's parser wants one. */
function withBareFlags(args: readonly string[], flags: Flags): string[] {
  const end = args.indexOf('--');
  return args.flatMap((arg, i) => {
    const bare = arg.startsWith('--') && (end < 0 || i < end) ? flags[arg.slice(2)]?.bare : undefined;
    return bare && !bare.unless.test(args[i + 1] ?? '') ? [`${arg}=${bare.value}`] : [arg];
  });
}

/** `--seed -1` means what it says; Node's parser would take -1 for an option. */
function withNegativeNumbers(args: readonly string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const before = joined.at(-1);
    if (/^-\d/.test(arg) && before?.startsWith('--') && !before.includes('='))
      joined[joined.length - 1] = `${before}=${arg}`;
    else joined.push(arg);
  }
  return joined;
}
