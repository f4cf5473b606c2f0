// Every program that requests of given sizes may ask for: what a bundle must hold to serve them.
// Follows the pipeline stage by stage; a test runs each kind of request on a bundle made from this list alone.
import type { BundleShape, BundleSpecs } from '../../../kernels-codegen/src/bundle/types.ts';
import { RANK_UNIT } from '../../../runtime/src/program/adapter-rooms.ts';
import { patches, TOKEN_CHANNELS, tokenCount } from '../kontext/latents.ts';
import { PREVIEW_PROGRAM } from '../kontext/preview.ts';
import { regionSizes } from '../kontext/stages/region-tokens.ts';
import { tilePrograms } from '../kontext/tiling.ts';
import type { ImageSize } from '../kontext/types.ts';

/** Kinds of caching whose programs a bundle can hold; `taylor` of the kind that extrapolates the velocity. */
export const CACHES = ['first-block', 'taylor', 'region'] as const;

export interface WantedShapes {
  /** Of pictures. */
  sizes: readonly ImageSize[];
  /** Of references; the picture's own size when left out. */
  references: readonly ImageSize[] | undefined;
  steps: readonly number[];
  textTokens: number;
  /** Ranks of the adapters that a second set of programs has room for. */
  loraRank?: number | undefined;
  caches?: readonly (typeof CACHES)[number][];
  /** Programs with guided attention, as requests with a `nagScale` need. */
  nag?: boolean;
  /** The program that mixes velocities as `cfgZeroStar` asks. */
  cfgZero?: boolean;
  /** Programs that draw from the autoencoder's posterior, as requests with `context: false` do. */
  imageToImage?: boolean;
  /** Of Fill, Canny and Depth, which take more channels and draw from the posterior too; none for the others. */
  controlChannels?: number;
}

const CLIP_TOKENS = 77;

/**
 * Edits with any sampler and schedule, mask, expand, strength and variants, and generations, with previews and with pictures that are
 * encoded and decoded in tiles when memory is short; what is rarer by what is asked for.
 */
export function shapesFor(wanted: WantedShapes): BundleShape[] {
  const { textTokens, steps, sizes, caches = [], controlChannels = 0 } = wanted;
  const shapes: BundleShape[] = [
    { component: 'clip', tokens: CLIP_TOKENS },
    { component: 't5', tokens: textTokens },
    ...steps.map((steps): BundleShape => ({ component: 'modulation', steps })),
    PREVIEW_PROGRAM,
  ];
  for (const size of sizes) {
    const image = patches(size);
    const tokens = tokenCount(size);
    const { width, height } = size;
    for (const references of [[], ...(wanted.references ?? [size]).map((reference) => [patches(reference)])]) {
      shapes.push({ component: 'denoise', textTokens, image, references });
      if (caches.includes('first-block')) {
        for (const component of ['denoise-first', 'denoise-rest', 'denoise-skip'] as const) {
          shapes.push({ component, textTokens, image, references });
        }
      }
      if (wanted.nag) shapes.push({ component: 'denoise-nag', textTokens, image, references });
      if (!caches.includes('region')) continue;
      for (const width of regionSizes(tokens)) {
        shapes.push({ component: 'denoise-region', textTokens, image: { height: 1, width }, references });
      }
    }
    // What is kept or started from is encoded at the picture's size, whatever the references have.
    for (const one of [...(wanted.references ?? []), size]) {
      shapes.push({ component: 'vae-encode', width: one.width, height: one.height }, ...tilePrograms('encode', one));
    }
    for (const component of ['euler', 'sampler', 'cfg', 'keep-known'] as const) {
      shapes.push({ component, tokens, channels: TOKEN_CHANNELS });
    }
    if (wanted.cfgZero) shapes.push({ component: 'cfg-zero', tokens, channels: TOKEN_CHANNELS });
    if (caches.includes('taylor')) {
      for (const component of ['taylor-update', 'taylor-predict'] as const) {
        shapes.push({ component, rows: tokens, cols: TOKEN_CHANNELS });
      }
    }
    if (wanted.imageToImage || controlChannels > 0) {
      shapes.push({ component: 'vae-encode', width, height, sample: true });
      if (controlChannels > TOKEN_CHANNELS) {
        shapes.push({ component: 'vae-encode', width, height, input: 'tensor', sample: true });
      }
    }
    shapes.push({ component: 'vae-decode', width, height }, ...tilePrograms('decode', size));
  }
  const room = wanted.loraRank === undefined ? undefined : Math.ceil(wanted.loraRank / RANK_UNIT) * RANK_UNIT;
  if (room !== undefined) shapes.push(...shapes.filter(takesAdapters).map((shape) => ({ ...shape, room })));
  const unique = new Map(shapes.map((shape) => [JSON.stringify(shape), shape]));
  return [...unique.values()];
}

const takesAdapters = ({ component }: BundleShape): boolean =>
  ['clip', 't5', 'modulation'].includes(component) || component.startsWith('denoise');

/** Channels that a model's transformer takes beside the latents. */
export const controlChannelsOf = ({ transformer }: BundleSpecs): number =>
  transformer.inChannels - transformer.outChannels;
