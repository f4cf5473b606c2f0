// Pictures during denoising: by one linear map from 16 latent channels to RGB, fitted for the loaded autoencoder, or by a small decoder.
// The autoencoder's own decoder would cost as much as a step; a 17×3 matrix costs nothing and shows composition and colour.
import { fromRgb, type PixelImage } from '../image/pixels.ts';
import { LATENT_CHANNELS, unpack } from './latents.ts';
import type { Parts, Work } from './parts.ts';
import { isTooLarge } from './tiling.ts';
import type { ImageSize } from './types.ts';

/** Inputs of the map: the channels and a constant. */
const TERMS = LATENT_CHANNELS + 1;
/** The chart is this many pixels wide and high: 1,024 samples for 17 unknowns. */
const CHART_SIDE = 256;

/** What {@link fitPreview} runs. */
export const PREVIEW_PROGRAM = { component: 'vae-encode', width: CHART_SIDE, height: CHART_SIDE } as const;

/** Latent channels (and 1) to red, green, blue in 0 to 255: row-major `[17, 3]`. */
export type PreviewMap = Float64Array;

/** Packed latents `[tokens, 64]` to a picture. */
export type Previewer = (tokens: Float32Array<ArrayBuffer>) => Promise<PixelImage>;

/**
 * The small decoder, where the app gave one and it fits the device; else the map, which is fitted once and kept in `cache`.
 *
 * @param size of the picture to come, in pixels
 */
export async function makePreviewer(
  parts: Parts,
  size: ImageSize,
  cache: { preview?: PreviewMap },
  work: Work,
): Promise<Previewer> {
  if (parts.specs.preview) {
    try {
      const executable = await parts.bind({ component: 'preview-decode', ...size }, work);
      return async (tokens) => {
        executable.write('latents', tokens);
        await parts.run(executable, work);
        const bytes = await executable.read('image', 'bytes');
        return { ...size, data: new Uint8ClampedArray(bytes.buffer, 0, size.width * size.height * 4) };
      };
    } catch (error) {
      if (!isTooLarge(error)) throw error;
    }
  }
  cache.preview ??= await fitPreview(parts, work);
  const map = cache.preview;
  return async (tokens) => previewImage(map, tokens, size);
}

/**
 * Fits the map by least squares on a chart of coloured patches and gradients: the autoencoder's latents of the chart against
 * the chart's own mean colour in each latent pixel.
 */
export async function fitPreview(parts: Parts, work: Work): Promise<PreviewMap> {
  const size = { width: CHART_SIDE, height: CHART_SIDE };
  const chart = previewChart(size);
  const executable = await parts.bind(PREVIEW_PROGRAM, work);
  executable.write('pixels', chart.data);
  await parts.run(executable, work);
  const tokens = (await executable.read('latents')).slice(0, (CHART_SIDE / 8) ** 2 * LATENT_CHANNELS);
  return leastSquares(unpack(tokens, size), meanColours(chart));
}

/**
 * @param tokens packed `[tokens, 64]`
 * @param size of the picture the latents belong to, in pixels
 * @returns a picture of 1/8 of the size
 */
export function previewImage(map: PreviewMap, tokens: Float32Array, size: ImageSize): PixelImage {
  const latents = unpack(tokens, size);
  const pixels = latents.length / LATENT_CHANNELS;
  const rgb = new Uint8ClampedArray(pixels * 3);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let colour = 0; colour < 3; colour++) {
      let value = map[LATENT_CHANNELS * 3 + colour]!;
      for (let c = 0; c < LATENT_CHANNELS; c++) value += map[c * 3 + colour]! * latents[c * pixels + pixel]!;
      rgb[pixel * 3 + colour] = value;
    }
  }
  return fromRgb(new Uint8Array(rgb.buffer), size.width / 8, size.height / 8);
}

/** Patches of 32 pixels with colours spread over the cube, each with a gentle gradient, as photos have both. */
function previewChart({ width, height }: ImageSize): PixelImage {
  const rgb = new Uint8ClampedArray(width * height * 3);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const patch = (y >> 5) * (width >> 5) + (x >> 5);
      for (let colour = 0; colour < 3; colour++, at++) {
        // Multiples of the golden ratio's powers spread evenly without a period (Roberts' R3 sequence).
        const base = 255 * ((patch * 1.2207440846 ** -(colour + 1)) % 1);
        rgb[at] = base + (colour === patch % 3 ? x % 32 : y % 32) - 16;
      }
    }
  }
  return fromRgb(new Uint8Array(rgb.buffer), width, height);
}

/** Mean colour of each 8×8 block: `[blocks, 3]`. */
function meanColours({ width, height, data }: PixelImage): Float64Array {
  const columns = width / 8;
  const means = new Float64Array(columns * (height / 8) * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const block = (y >> 3) * columns + (x >> 3);
      for (let colour = 0; colour < 3; colour++) {
        means[block * 3 + colour] = means[block * 3 + colour]! + data[(y * width + x) * 4 + colour]! / 64;
      }
    }
  }
  return means;
}

/** Solves (XᵀX + λI)·map = XᵀY by Gauss-Jordan elimination; λ keeps unused channels of small models at 0. */
function leastSquares(latents: Float32Array, colours: Float64Array): PreviewMap {
  const samples = colours.length / 3;
  const term = (sample: number, i: number) => (i === LATENT_CHANNELS ? 1 : latents[i * samples + sample]!);
  const rows = Array.from({ length: TERMS }, (_, i) => {
    const row = new Float64Array(TERMS + 3);
    for (let s = 0; s < samples; s++) {
      for (let j = 0; j < TERMS; j++) row[j] = row[j]! + term(s, i) * term(s, j);
      for (let colour = 0; colour < 3; colour++)
        row[TERMS + colour] = row[TERMS + colour]! + term(s, i) * colours[s * 3 + colour]!;
    }
    row[i] = row[i]! + 1e-3 * samples;
    return row;
  });
  for (let pivot = 0; pivot < TERMS; pivot++) {
    // Symmetric and positive definite, so no pivot search is needed.
    const scale = rows[pivot]![pivot]!;
    rows[pivot] = rows[pivot]!.map((value) => value / scale);
    rows.forEach((row, i) => {
      const factor = row[pivot]!;
      if (i !== pivot) rows[i] = row.map((value, j) => value - factor * rows[pivot]![j]!);
    });
  }
  return Float64Array.from(rows.flatMap((row) => [...row.subarray(TERMS)]));
}
