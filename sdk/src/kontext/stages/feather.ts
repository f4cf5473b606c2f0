// How much of a new picture shows at each pixel of a mask: its own grey, fading out towards its edge, nothing outside.
// The fade lies inside the mask only, so that what is black in it stays the input's own.
import type { GreyImage } from './mask.ts';

/** Widest fade chosen by itself, in pixels: hides a step of a few grey levels without softening an object's outline. */
const AUTO_FEATHER = 8;

/**
 * Shares of the new picture, 0 to 1, row by row. At distance d from the nearest black pixel the mask's grey counts
 * min(1, d / (feather + 1)); the picture's own border is no edge.
 *
 * @param feather pixels; by itself 8, or less where the mask is narrower than 32
 */
export function featherWeights(mask: GreyImage, feather?: number): Float32Array {
  const { data } = mask;
  const distances = edgeDistances(mask);
  const widest = distances.reduce((a, b) => (b < Infinity ? Math.max(a, b) : a), 0);
  const fade = feather ?? Math.min(AUTO_FEATHER, widest / 4);
  return distances.map((distance, i) => (data[i]! / 255) * Math.min(1, distance / (fade + 1)));
}

/**
 * Euclidean distance of each pixel to the nearest black one, 0 for a black one itself, Infinity without any.
 *
 * @see Felzenszwalb and Huttenlocher 2012, "Distance transforms of sampled functions"
 */
export function edgeDistances({ width, height, data }: GreyImage): Float32Array {
  const squares = Float64Array.from(data, (level) => (level === 0 ? 0 : Infinity));
  const line = new Float64Array(Math.max(width, height));
  const pass = (start: number, stride: number, length: number) => {
    for (let i = 0; i < length; i++) line[i] = squares[start + i * stride]!;
    lowerEnvelope(line, length, (i, square) => {
      squares[start + i * stride] = square;
    });
  };
  for (let x = 0; x < width; x++) pass(x, width, height);
  for (let y = 0; y < height; y++) pass(y * width, 1, width);
  return Float32Array.from(squares, Math.sqrt);
}

/** min over j of (i − j)² + f[j], for all i: the lower envelope of parabolas with their feet at f[j]. */
function lowerEnvelope(f: Float64Array, length: number, put: (i: number, square: number) => void): void {
  const feet: number[] = [];
  const starts: number[] = [];
  for (let j = 0; j < length; j++) {
    if (f[j] === Infinity) continue;
    let from = -Infinity;
    while (feet.length > 0) {
      const k = feet.at(-1)!;
      from = (f[j]! + j * j - (f[k]! + k * k)) / (2 * (j - k));
      if (from > starts.at(-1)!) break;
      feet.pop();
      starts.pop();
      from = -Infinity;
    }
    feet.push(j);
    starts.push(from);
  }
  for (let i = 0, at = 0; i < length; i++) {
    if (feet.length === 0) {
      put(i, Infinity);
      continue;
    }
    while (at + 1 < feet.length && starts[at + 1]! < i) at++;
    put(i, (i - feet[at]!) ** 2 + f[feet[at]!]!);
  }
}
