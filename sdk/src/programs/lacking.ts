// What to do about a program that a bundle lacks: which flag of `kontext compile` adds it. Apart from the list of shapes, which readers of
// bundles in pages need not load.

/** @param request what was asked for. @returns a sentence */
export function lackingHint(request: object): string {
  const { component, sample, steps } = request as { component: string; sample?: boolean; steps?: number };
  const compile = (flag: string) => `Compile one with kontext compile${flag}, or leave \`programs\` out.`;
  switch (component) {
    case 'denoise-first':
    case 'denoise-rest':
    case 'denoise-skip':
      return compile(' --cache first-block');
    case 'taylor-update':
    case 'taylor-predict':
      return compile(' --cache taylor');
    case 'denoise-region':
      return compile(' --cache region');
    case 'denoise-nag':
      return compile(' --nag');
    case 'cfg-zero':
      return compile(' --cfg-zero');
    case 'denoise-tell':
    case 'denoise-given':
      return 'Bundles hold none: leave `programs` out, or take cache kind "taylor" with lite: true.';
    case 'modulation':
      // A strength below 1 runs fewer steps than were asked for.
      return compile(` --steps ${steps}`);
    default:
      return compile(sample ? ' --image-to-image' : '');
  }
}
