// The command line's grammar: which options each command takes, what they mean, and the help made from them.
// Names are stable; ranges, defaults and most texts come from the SDK's one table.
import { parseArgs } from 'node:util';
import { KontextError } from '../../../runtime/src/errors.ts';
import { type ChoiceOption, LOAD_OPTIONS, type NumberOption, REQUEST_OPTIONS } from '../kontext/options.ts';

interface Flag {
  /** Placeholder of the value; absent for switches. */
  value?: string;
  short?: string;
  repeatable?: boolean;
  help: string;
  commands: readonly Command[];
}

const COMMANDS = ['edit', 'generate', 'doctor'] as const;
export type Command = (typeof COMMANDS)[number];

const BOTH = ['edit', 'generate'] as const;
const EDIT = ['edit'] as const;

/** Every option, in the order the help shows them. */
const FLAGS = {
  output: { value: 'OUT', short: 'o', help: 'picture to write: .png, .jpg or .webp', commands: BOTH },
  model: {
    value: 'PATH|URL|demo',
    help: 'folder of the model (default: demo, the small one that comes along)',
    commands: BOTH,
  },
  steps: { value: 'N', help: numberHelp(REQUEST_OPTIONS.steps, 'the model may say otherwise'), commands: BOTH },
  guidance: { value: 'G', help: numberHelp(REQUEST_OPTIONS.guidance), commands: BOTH },
  seed: { value: 'N', help: 'of the noise, as torch.Generator("cpu") (default: random)', commands: BOTH },
  width: { value: 'W', help: 'of the picture, with --height (default: nearest preferred size)', commands: BOTH },
  height: { value: 'H', help: 'multiples of 16', commands: BOTH },
  'no-auto-resize': { help: 'keep the references’ sizes, floored to multiples of 16', commands: EDIT },
  'max-area': { value: 'N', help: REQUEST_OPTIONS.maxArea.help, commands: BOTH },
  'max-sequence-length': {
    value: 'N',
    help: numberHelp(REQUEST_OPTIONS.maxSequenceLength, 'the model may say otherwise'),
    commands: BOTH,
  },
  'negative-prompt': { value: 'TEXT', help: 'what to steer away from, with --true-cfg-scale', commands: BOTH },
  'true-cfg-scale': { value: 'S', help: numberHelp(REQUEST_OPTIONS.trueCfgScale), commands: BOTH },
  reference: { value: 'IMAGE', repeatable: true, help: 'a further picture the prompt refers to', commands: EDIT },
  precision: { value: 'P', help: choiceHelp(LOAD_OPTIONS.precision), commands: [...BOTH, 'doctor'] },
  conditioning: { value: 'C', help: choiceHelp(LOAD_OPTIONS.conditioning), commands: BOTH },
  quantization: { value: 'Q', help: choiceHelp(LOAD_OPTIONS.quantization), commands: BOTH },
  memory: { value: 'M', help: choiceHelp(LOAD_OPTIONS.memory), commands: BOTH },
  programs: { value: 'BUNDLE', help: 'folder or URL of programs compiled ahead of time', commands: BOTH },
  'public-key': {
    value: 'FILE|KEY',
    help: 'who signed those programs: an Ed25519 key in PEM or base64; they then run without bounds checks',
    commands: BOTH,
  },
  adapter: { value: 'NAME', help: 'part of the GPU’s name, as doctor shows it', commands: [...BOTH, 'doctor'] },
  'save-latents': { value: 'FILE', help: 'write the final latents as safetensors', commands: BOTH },
  latents: { value: 'FILE', help: 'start from these packed latents instead of the seed’s noise', commands: BOTH },
  metadata: { help: 'keep prompt, seed and options in the PNG', commands: BOTH },
  json: { help: 'print a report as JSON: seed, size, timings, memory', commands: [...BOTH, 'doctor'] },
  quiet: { help: 'no progress', commands: BOTH },
  help: { short: 'h', help: 'this text', commands: COMMANDS },
} as const satisfies Record<string, Flag>;

type FlagName = keyof typeof FLAGS;

/** What was typed, split but not yet judged. */
export interface ParsedArguments {
  command: Command;
  /** Positional arguments after the command. */
  words: string[];
  values: Partial<Record<FlagName, string | string[] | boolean>>;
}

/**
 * @param args without node and script
 * @returns undefined when help was asked for
 * @throws KontextError `invalid-request` for an unknown command or option
 */
export function parseArguments(args: readonly string[]): ParsedArguments | undefined {
  const [first, ...rest] = args;
  if (first === undefined || first === 'help' || first === '--help' || first === '-h') return undefined;
  const command = COMMANDS.find((known) => known === first);
  if (!command) throw usage(`There is no command "${first}". Commands: ${COMMANDS.join(', ')}.`);
  const options = Object.fromEntries(
    flagsOf(command).map(([name, flag]) => [
      name,
      {
        type: flag.value === undefined ? ('boolean' as const) : ('string' as const),
        ...(flag.short !== undefined && { short: flag.short }),
        ...(flag.repeatable && { multiple: true }),
      },
    ]),
  );
  try {
    const { values, positionals } = parseArgs({ args: withNegativeNumbers(rest), options, allowPositionals: true });
    if (values.help) return undefined;
    return { command, words: positionals, values: values as ParsedArguments['values'] };
  } catch (cause) {
    // Node's own message names the option; its advice about `--` fits.
    throw usage(`${(cause as Error).message.split('\n')[0]} See kontext --help.`);
  }
}

/** The text of `kontext --help`. */
export function helpText(): string {
  const lines = Object.entries<Flag>(FLAGS).map(([name, flag]) => {
    const short = flag.short === undefined ? '' : `-${flag.short}, `;
    const value = flag.value === undefined ? '' : ` ${flag.value}`;
    return `  ${`${short}--${name}${value}`.padEnd(28)} ${flag.help}${flag.repeatable ? ' (repeatable)' : ''}`;
  });
  return `Edit pictures with FLUX.1 Kontext on WebGPU.

  kontext edit IMAGE PROMPT -o OUT
  kontext generate PROMPT -o OUT
  kontext doctor

Programs ahead of time (docs/guide/ahead-of-time.md)
  kontext compile --target NAME[,NAME…]|this|FILE.json --size WxH | --preferred -o DIR [--model PATH|demo]
      [--reference WxH] [--quantization none,f16,q8,q4] [--steps N,…] [--max-sequence-length N] [--wgsl]
      [--sign KEY.pem]
  kontext compile --diff A B
  kontext targets [--probe]
  kontext inspect BUNDLE [--program N [--svg FILE]] [--roofline GPU|TARGET|TFLOPS,GB/s]

Options
${lines.join('\n')}

Exit codes
  0 done · 1 failed · 2 wrong request or picture · 3 no usable GPU, or not enough of it
  4 model cannot be downloaded or read · 130 cancelled
`;
}

export function usage(message: string): KontextError {
  return new KontextError('invalid-request', message);
}

function flagsOf(command: Command): [string, Flag][] {
  return Object.entries<Flag>(FLAGS).filter(([, flag]) => flag.commands.includes(command));
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

function numberHelp(option: NumberOption, note?: string): string {
  return `${option.help} (default: ${option.default}${note ? `; ${note}` : ''})`;
}

function choiceHelp({ help, choices, default: standard }: ChoiceOption): string {
  return `${choices.join('|')} (default: ${standard}); ${help}`;
}
