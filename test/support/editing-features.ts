// Every feature of an edit as a piece of a request, and which two do not go together: for tests over all pairs.
import type { PixelImage } from '../../sdk/src/image/pixels.ts';

const SIDE = 32;
const square = (at: (i: number) => number): PixelImage => ({
  width: SIDE,
  height: SIDE,
  data: Uint8ClampedArray.from({ length: 4 * SIDE * SIDE }, (_, i) => (i % 4 === 3 ? 255 : at(i >> 2))),
});
const picture = square((i) => (i * 37) & 255);
/** Its upper half may change. */
const mask = square((i) => (i < (SIDE * SIDE) / 2 ? 255 : 0));
const negative = { negativePrompt: 'blurred' };

/** What all have in common: an edit of three steps. */
export const BASE = {
  image: picture,
  prompt: 'a red fox',
  steps: 3,
  seed: 5,
  maxSequenceLength: 8,
  size: { width: SIDE, height: SIDE },
  autoResize: false,
} as const;

/** By what they change of an edit: two of one kind are no pair, unless they are features of their own. */
export const FEATURES: Readonly<Record<string, { kind: string; request: object }>> = {
  mask: { kind: 'scene', request: { mask } },
  'reference mask': { kind: 'scene', request: { mask, maskMode: 'reference' } },
  expand: { kind: 'scene', request: { expand: { left: 16 } } },
  strength: { kind: 'start', request: { strength: 0.7 } },
  'no context': { kind: 'start', request: { context: false, strength: 0.7 } },
  references: { kind: 'references', request: { references: [picture] } },
  stitched: { kind: 'references', request: { references: [picture], referencePositions: 'stitched' } },
  variants: { kind: 'count', request: { variants: 2, variantSteps: 1, choose: () => 0 } },
  images: { kind: 'count', request: { images: 2 } },
  size: { kind: 'size', request: { size: { width: 48, height: 32 } } },
  'input size': { kind: 'size', request: { size: 'input' } },
  latents: { kind: 'latents', request: { latents: new Float32Array(4 * 64).fill(0.5) } },
  heun: { kind: 'sampler', request: { sampler: 'heun' } },
  ancestral: { kind: 'sampler', request: { sampler: 'euler_ancestral', eta: 0.5 } },
  multistep: { kind: 'sampler', request: { sampler: 'dpmpp_2m' } },
  sigmas: { kind: 'schedule', request: { sigmas: [1, 0.7, 0.3] } },
  'true guidance': { kind: 'guidance', request: { ...negative, trueCfgScale: 2 } },
  'CFG-Zero*': { kind: 'guidance', request: { ...negative, trueCfgScale: 2, cfgZeroStar: true } },
  NAG: { kind: 'attention', request: { ...negative, nagScale: 3, nagSigmaEnd: 0.5 } },
  'first block': { kind: 'cache', request: { cache: { kind: 'first-block', threshold: 10 } } },
  Taylor: { kind: 'cache', request: { cache: { kind: 'taylor', start: 1, interval: 3 } } },
  'Taylor in attention': {
    kind: 'cache',
    request: { cache: { kind: 'taylor', start: 1, interval: 3, lite: false } },
  },
  region: { kind: 'cache', request: { cache: { kind: 'region', start: 1, interval: 3, margin: 0 } } },
  previews: { kind: 'preview', request: { preview: { every: 1 } } },
};

/** A piece of a request that needs a companion of its own; alone it is refused. */
const NEEDS_MASK = /needs a mask or expand/;

/** @returns what a request with both is refused for; undefined where they go together */
export function refusalOf(a: string, b: string): RegExp | undefined {
  const both = (x: string | readonly string[], y: string | readonly string[]) =>
    ([x].flat().includes(a) && [y].flat().includes(b)) || ([x].flat().includes(b) && [y].flat().includes(a));
  const caches = ['first block', 'Taylor', 'Taylor in attention', 'region'];
  if (both('NAG', caches)) return both('NAG', 'region') ? /do not go together|needs a mask/ : /do not go together/;
  if (a === 'region' || b === 'region') {
    if (!both('region', ['mask', 'reference mask', 'expand'])) return NEEDS_MASK;
  }
  if (both('references', 'no context') || both('stitched', 'no context')) return /references are context/;
  if (both('latents', 'variants')) return /Leave out latents, or variants/;
  if (both('latents', ['images', 'size'])) return /latents has 256 values/;
  if (both('heun', ['Taylor', 'Taylor in attention'])) return /evaluates twice a step/;
  return undefined;
}

/** Every two features of different kinds. */
export const PAIRS: readonly (readonly [string, string])[] = Object.entries(FEATURES).flatMap(([a, of], i, all) =>
  all.slice(i + 1).flatMap(([b, other]) => (of.kind === other.kind ? [] : [[a, b] as const])),
);
