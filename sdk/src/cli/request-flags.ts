// The options table as flags, and flags as the options of a request or a load.
// A new row of the table is a flag here, in help and in what is sent, without a line of code.
import { type ChoiceOption, LOAD_OPTIONS, REQUEST_OPTIONS, type RequestOption } from '../kontext/options.ts';
import { type Flag, type Flags, type FlagValues, usage } from './grammar.ts';
import { assertPicture } from './inputs.ts';
import { readLatents } from './latents-file.ts';

/** Flags of every option that an edit, or a generation, takes. */
export function requestFlags(kind: 'edit' | 'generate'): Flags {
  return Object.fromEntries(optionsOf(kind).map(([name, option]) => [flagOf(name, option), flagFor(option)]));
}

/** Flags of the options of `Kontext.load`. */
export function loadFlags(): Flags {
  const choices = Object.entries<ChoiceOption>(LOAD_OPTIONS);
  return {
    ...Object.fromEntries(choices.map(([name, option]) => [flagOf(name, option), flagFor(option)])),
    profile: { value: 'FILE', help: 'schedules that kontext tune measured on this GPU' },
  };
}

/**
 * What the flags say, by the options' own names. Ranges and closed lists are the SDK's business; that a number is one is
 * checked here, for a better message.
 *
 * @throws KontextError `invalid-request` for what is no number; as {@link readLatents}
 */
export async function requestOptions(
  kind: 'edit' | 'generate',
  values: FlagValues<Flags>,
): Promise<Record<string, unknown>> {
  const given: Record<string, unknown> = {};
  for (const [name, option] of optionsOf(kind)) {
    const flag = flagOf(name, option);
    const value = values[flag];
    if (value !== undefined) given[name] = await parsed(flag, option, value);
  }
  return given;
}

/** What the flags say of the options of `Kontext.load`; the SDK refuses values that are not in its lists. */
export function loadOptions(values: FlagValues<Flags>): Record<string, unknown> {
  const { profile } = values;
  const chosen = Object.fromEntries(
    Object.entries<ChoiceOption>(LOAD_OPTIONS).flatMap(([name, option]) => {
      const value = values[flagOf(name, option)];
      return value === undefined ? [] : [[name, value]];
    }),
  );
  return profile === undefined ? chosen : { ...chosen, profile };
}

/** A number in words. @throws KontextError `invalid-request` naming the flag */
export function numberFrom(flag: string, text: string): number {
  if (text.trim() !== '' && !Number.isNaN(Number(text))) return Number(text);
  throw usage(`--${flag} is "${text}"; it must be a number.`);
}

/** A kind of cache and its number, in words. @throws KontextError `invalid-request` for what is no number */
export function cacheFrom(flag: string, text: string): Record<string, unknown> {
  const [kind, number] = text.split(':');
  // A kind that is not known is refused by the SDK, which names those there are.
  const name = { taylor: 'order', region: 'interval' }[kind!] ?? 'threshold';
  return { kind, ...(number !== undefined && { [name]: numberFrom(flag, number) }) };
}

function optionsOf(kind: 'edit' | 'generate'): [string, RequestOption][] {
  return Object.entries<RequestOption>(REQUEST_OPTIONS).filter(([, { only }]) => only === undefined || only === kind);
}

/** `maxArea` is `--max-area`; a switch that is on by default has a flag that turns it off. */
export function flagOf(name: string, option: RequestOption): string {
  const dashed = (option.flag ?? name).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return option.kind === 'switch' && option.default ? `no-${dashed}` : dashed;
}

const PLACEHOLDERS = {
  integer: 'N',
  number: 'X',
  choice: 'NAME',
  text: 'TEXT',
  seed: 'N',
  size: 'WxH',
  picture: 'IMAGE',
  latents: 'FILE',
  numbers: 'N,N,…',
  sides: 'L,T,R,B',
  cache: 'KIND[:X]',
} as const;

function flagFor(option: RequestOption): Flag {
  if (option.kind === 'switch') return { help: option.default ? `switch off: ${option.help}` : option.help };
  const choices = option.kind === 'choice' ? `${option.choices.join('|')}; ` : '';
  return {
    value: PLACEHOLDERS[option.kind],
    ...('list' in option && option.list && { list: true }),
    help: `${choices}${option.help} (default: ${option.default ?? 'none'})`,
  };
}

async function parsed(flag: string, option: RequestOption, value: string | string[] | boolean): Promise<unknown> {
  // A switch's flag says the opposite of its default.
  if (typeof value === 'boolean') return option.kind === 'switch' ? !option.default : value;
  if (option.kind === 'picture') {
    for (const path of [value].flat()) await assertPicture(path, flag);
  }
  if (Array.isArray(value)) return value;
  switch (option.kind) {
    case 'integer':
    case 'number':
      return numberFrom(flag, value);
    case 'seed':
      if (/^-?\d+$/.test(value)) return BigInt(value);
      throw usage(`--${flag} is "${value}"; it must be a whole number.`);
    case 'numbers':
      return value.split(',').map((text) => numberFrom(flag, text));
    case 'sides': {
      const [left = 0, top = 0, right = 0, bottom = 0] = value.split(',').map((text) => numberFrom(flag, text));
      return { left, top, right, bottom };
    }
    case 'cache':
      return cacheFrom(flag, value);
    case 'latents':
      return readLatents(value);
    default:
      return value;
  }
}
