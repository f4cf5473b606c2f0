// What an adapter wants a request to be, out of its file's header: few-step adapters are nothing without their steps.
import { KontextError } from '../../../../runtime/src/errors.ts';
import { adapterSettings } from '../../../../runtime/src/weights/adapters/metadata.ts';
import type { Adapter } from '../../../../runtime/src/weights/adapters/types.ts';
import { type ChoiceOption, type ModelDefaults, type NumberOption, REQUEST_OPTIONS } from '../options.ts';

/** Options that the way a model was trained decides. */
export type AdapterSettings = Pick<ModelDefaults, (typeof SETTING_NAMES)[number]>;

export const SETTING_NAMES = ['steps', 'guidance', 'sampler', 'schedule'] as const;

/**
 * The header entry `kontext` of an adapter file, JSON: `{"steps": 8, "guidance": 3.5}`.
 *
 * @throws KontextError `weights-invalid` naming what is wrong in it
 */
export function settingsOf({ metadata, label }: Pick<Adapter, 'metadata' | 'label'>): AdapterSettings {
  return checkSettings(adapterSettings(metadata), `${label}, header entry "kontext"`);
}

/** @param file named in the refusal */
export function checkSettings(json: Readonly<Record<string, unknown>>, file: string): AdapterSettings {
  for (const [name, value] of Object.entries(json)) {
    const known = SETTING_NAMES.find((one) => one === name);
    if (!known) throw invalid(file, `"${name}" is not known; there are ${SETTING_NAMES.join(', ')}`);
    const option: NumberOption | ChoiceOption = REQUEST_OPTIONS[known];
    const fits =
      option.kind === 'choice'
        ? option.choices.includes(value as string)
        : typeof value === 'number' &&
          (option.kind === 'number' || Number.isInteger(value)) &&
          value >= option.min &&
          value <= option.max;
    if (fits) continue;
    const what =
      option.kind === 'choice' ? `one of ${option.choices.join(', ')}` : `a number from ${option.min} to ${option.max}`;
    throw invalid(file, `${name} must be ${what}`);
  }
  return json as AdapterSettings;
}

function invalid(file: string, problem: string): KontextError {
  return new KontextError('weights-invalid', `${file}: ${problem}.`, { file });
}
