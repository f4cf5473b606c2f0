// Which sampler makes the most of few evaluations.
import { REQUEST_OPTIONS } from '../../../sdk/src/kontext/options.ts';
import type { Study } from '../study.ts';

/** Odd, so that Heun, who evaluates twice but in the last step, meets each exactly. */
const EVALUATIONS = [3, 5, 7] as const;

export const samplers: Study = {
  about: 'The model’s own schedule; the first row is the model’s default.',
  settings: [
    { name: 'euler, 12', options: () => ({ steps: 12 }) },
    ...EVALUATIONS.flatMap((evaluations) =>
      REQUEST_OPTIONS.sampler.choices.map((sampler) => ({
        name: `${sampler}, ${evaluations}`,
        options: () => ({ sampler, steps: sampler === 'heun' ? (evaluations + 1) / 2 : evaluations }),
      })),
    ),
  ],
};
