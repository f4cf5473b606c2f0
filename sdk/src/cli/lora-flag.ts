// `--lora FILE[:SCALE]` as the SDK's adapters.
// The scale stands behind the last colon, so that Windows drives and URLs keep theirs.
import type { AdapterOptions } from '../kontext/types.ts';
import { demoAdapter } from '../model/demo.ts';
import { type Flags, type FlagValues, usage } from './grammar.ts';

export const LORA_FLAGS = {
  lora: {
    value: 'FILE|demo[:SCALE]',
    list: true,
    help: 'adapter (LoRA, LoKr, LoHa, …) with its strength, 1 by default; may be repeated',
  },
  'lora-merge': { help: 'add the adapters to the weights while they load: no cost in the steps' },
  'lora-lenient': { help: 'use what can be used of an adapter instead of refusing it' },
} as const satisfies Flags;

/** The options of `Kontext.load` that the flags stand for. */
export function loraOptions(values: FlagValues<typeof LORA_FLAGS>): { adapters?: AdapterOptions[]; merge?: true } {
  const adapters = values.lora?.map((text): AdapterOptions => {
    const [, source, scale] = /^(.+):(-?\d*\.?\d+)$/.exec(text) ?? [];
    const place =
      source === undefined ? { source: adapterPlace(text) } : { source: adapterPlace(source), scale: Number(scale) };
    return { ...place, ...(values['lora-lenient'] && { strict: false }) };
  });
  if (!adapters && values['lora-merge']) throw usage('--lora-merge needs an adapter: --lora FILE.');
  if (!adapters && values['lora-lenient']) throw usage('--lora-lenient needs an adapter: --lora FILE.');
  return { ...(adapters && { adapters }), ...(values['lora-merge'] && { merge: true }) };
}

/** `demo` is the adapter that comes with the demo model. */
export const adapterPlace = (text: string): string => (text === 'demo' ? demoAdapter() : text);
