// What an adapter file's header says beside its tensors: PEFT's configuration, and the settings it wants to be run with.
// All of it is text from outside: read with care, matched literally.

import { KontextError } from '../../errors.ts';

/** The factor of modules whose file stores no alpha. */
export interface PeftSettings {
  /** @param stem the module as the file names it */
  scaling(stem: string, rank: number): { factor: number; alpha?: number };
}

/** From diffusers' `lora_adapter_metadata`; a factor of 1 without it. */
export function peftSettings(metadata: Readonly<Record<string, string>>): PeftSettings {
  const text = metadata.lora_adapter_metadata;
  const config = text === undefined ? undefined : parse(text, 'lora_adapter_metadata');
  return {
    scaling(stem, rank) {
      const prefix = PREFIXES.find((known) => stem.startsWith(known)) ?? 'transformer.';
      const setting = (name: string): unknown => config?.[`${prefix}${name}`] ?? config?.[name];
      const module = stem.startsWith(prefix) ? stem.slice(prefix.length) : stem;
      const alpha = matched(setting('alpha_pattern'), module) ?? setting('lora_alpha');
      if (typeof alpha !== 'number' || !Number.isFinite(alpha)) return { factor: 1 };
      return { factor: setting('use_rslora') === true ? alpha / Math.sqrt(rank) : alpha / rank, alpha };
    },
  };
}

/**
 * How an adapter wants to be run: the header entry `kontext`, JSON as in a model's `kontext.json`.
 *
 * @throws KontextError `weights-invalid` when it is no object
 */
export function adapterSettings(metadata: Readonly<Record<string, string>>): Readonly<Record<string, unknown>> {
  return metadata.kontext === undefined ? {} : parse(metadata.kontext, 'kontext');
}

const PREFIXES = ['transformer.', 'text_encoder.', 'text_encoder_2.'];

/** PEFT's patterns name modules by their ends; they are taken literally here, never as expressions. */
function matched(patterns: unknown, module: string): number | undefined {
  if (typeof patterns !== 'object' || patterns === null) return undefined;
  for (const [pattern, value] of Object.entries(patterns)) {
    const name = pattern.replace(/^\^/, '').replace(/\$$/, '').replaceAll('\\.', '.');
    if (typeof value === 'number' && (module === name || module.endsWith(`.${name}`))) return value;
  }
  return undefined;
}

function parse(text: string, entry: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new KontextError('weights-invalid', `The adapter's header entry "${entry}" is no JSON object.`, { entry });
}
