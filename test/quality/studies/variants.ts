// What variants and their early choice bring at the same number of evaluations, and at more.
import type { Study } from '../study.ts';

const variants = (count: number, steps: number, before: number) => ({
  name: count === 1 ? `1 variant, ${steps} steps` : `${count} variants, ${steps} steps, chosen after ${before}`,
  options: () => ({ steps, ...(count > 1 && { variants: count, variantSteps: before }) }),
});

export const variantsStudy: Study = {
  about: 'The built-in choice. The first three settings cost 12 evaluations, the others 21.',
  settings: [
    variants(1, 12, 0),
    variants(2, 10, 2),
    variants(4, 6, 2),
    variants(1, 21, 0),
    variants(2, 18, 3),
    variants(4, 12, 3),
  ],
};
