// Help texts, made from what each command says about itself.
import { COMMANDS } from './commands.ts';
import { COMMON_FLAGS, type Command, type Flag } from './grammar.ts';

/** The text of `kontext --help`: every command with what it does and an example. */
export async function helpText(): Promise<string> {
  const parts: string[] = [];
  for (const [name, load] of Object.entries(COMMANDS)) {
    const { summary, examples } = await load();
    parts.push(`  ${name.padEnd(10)} ${summary}\n${' '.repeat(13)}${examples[0]}`);
  }
  return `Edit pictures with FLUX.1 Kontext on WebGPU.

${parts.join('\n')}

kontext COMMAND --help lists a command's options.

Exit codes
  0 done · 1 failed · 2 wrong request or picture · 3 no usable GPU, or not enough of it
  4 model cannot be downloaded or read · 130 cancelled
`;
}

/** The text of `kontext NAME --help`. */
export function commandHelp(name: string, { summary, usage, examples, flags, notes }: Command): string {
  const lines = Object.entries<Flag>({ ...flags, ...COMMON_FLAGS }).map(
    ([flag, { short, value, list, bare, help }]) => {
      const shown = value === undefined ? '' : bare ? ` [${value}]` : ` ${value}`;
      const left = `${short === undefined ? '' : `-${short}, `}--${flag}${shown}`;
      return `  ${left.padEnd(28)} ${help}${list ? ' (repeatable)' : ''}`;
    },
  );
  return `${summary}

${usage.map((form) => `  kontext ${name} ${form}`.trimEnd()).join('\n')}

Examples
${examples.map((example) => `  ${example}`).join('\n')}

Options
${lines.join('\n')}
${notes === undefined ? '' : `\n${notes}\n`}`;
}
