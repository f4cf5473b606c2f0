// Colours of 16-bit pictures with an embedded profile: profile → XYZ → sRGB, for profiles of a matrix and curves.
// sharp sends 16-bit pictures through Display P3 and leaves them there: up to 100 levels off (its pipeline.cc, `processingProfile`).
// ICC.1:2022, https://www.color.org/specification/ICC.1-2022-05.pdf: header 7.2, tags 7.3, curveType 10.6, parametricCurveType 10.18.

/** Turns samples of 16 bits into sRGB of 16. */
export interface ColourConversion {
  /** Samples that one pixel has in the profile's space: 1 or 3. */
  colours: 1 | 3;
  /**
   * Converts the colours of one pixel; the first three of `out` become R, G, B.
   *
   * @param at index of its first sample in `samples`
   */
  convert(samples: Uint16Array, at: number, out: Uint16Array): void;
}

/**
 * @param profile an ICC profile
 * @returns undefined for profiles of other kinds (lookup tables, other spaces), and for damaged ones
 */
export function conversionToSrgb(profile: Uint8Array): ColourConversion | undefined {
  try {
    return fromTags(readTags(profile), asciiAt(profile, 16), asciiAt(profile, 20));
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

type Tags = ReadonlyMap<string, DataView>;

function fromTags(tags: Tags, space: string, connection: string): ColourConversion | undefined {
  // A profile with tables for the perceptual intent means those.
  if (connection !== 'XYZ ' || tags.has('A2B0')) return undefined;
  if (space === 'GRAY') {
    const curve = curveTable(tags.get('kTRC'));
    return curve && { colours: 1, convert: greyConverter(curve) };
  }
  if (space !== 'RGB ') return undefined;
  const curves = ['rTRC', 'gTRC', 'bTRC'].map((name) => curveTable(tags.get(name)));
  const columns = ['rXYZ', 'gXYZ', 'bXYZ'].map((name) => xyz(tags.get(name)));
  const [r, g, b] = curves;
  const [x, y, z] = columns;
  if (!r || !g || !b || !x || !y || !z) return undefined;
  return { colours: 3, convert: rgbConverter([r, g, b], [x, y, z]) };
}

function greyConverter(curve: Float32Array): ColourConversion['convert'] {
  return (samples, at, out) => {
    const level = encoded(curve[samples[at]!]!);
    out[0] = level;
    out[1] = level;
    out[2] = level;
  };
}

function rgbConverter(curves: Float32Array[], columns: number[][]): ColourConversion['convert'] {
  const [red, green, blue] = curves as [Float32Array, Float32Array, Float32Array];
  // XYZ_TO_RGB · columns, row by row.
  const m = XYZ_TO_RGB.map((row) =>
    columns.map((column) => row.reduce((sum, value, i) => sum + value * column[i]!, 0)),
  ) as number[][];
  const [[a, b, c], [d, e, f], [g, h, i]] = m as [number[], number[], number[]];
  return (samples, at, out) => {
    const x = red[samples[at]!]!;
    const y = green[samples[at + 1]!]!;
    const z = blue[samples[at + 2]!]!;
    out[0] = encoded(a! * x + b! * y + c! * z);
    out[1] = encoded(d! * x + e! * y + f! * z);
    out[2] = encoded(g! * x + h! * y + i! * z);
  };
}

/** From the connection space (D50) to linear sRGB: IEC 61966-2-1's primaries, adapted by Bradford's method as profiles are. */
const XYZ_TO_RGB = [
  [3.1338561, -1.6168667, -0.4906146],
  [-0.9787684, 1.9161415, 0.033454],
  [0.0719453, -0.2289914, 1.4052427],
];

/** IEC 61966-2-1 at steps of the linear value; between them the curve is straight enough for 16 bits. */
const ENCODED = Float32Array.from({ length: 65537 }, (_, i) => {
  const linear = Math.min(1, i / 65535);
  return 65535 * (linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055);
});

function encoded(linear: number): number {
  const at = Math.min(1, Math.max(0, linear)) * 65535;
  const low = Math.floor(at);
  return Math.round(ENCODED[low]! + (at - low) * (ENCODED[low + 1]! - ENCODED[low]!));
}

/** A tone curve at every 16-bit sample. */
function curveTable(tag: DataView | undefined): Float32Array | undefined {
  if (!tag) return undefined;
  const kind = ascii(tag, 0);
  const curve = kind === 'curv' ? sampledCurve(tag) : kind === 'para' ? parametricCurve(tag) : undefined;
  return curve && Float32Array.from({ length: 65536 }, (_, i) => Math.min(1, Math.max(0, curve(i / 65535))));
}

function sampledCurve(tag: DataView): (x: number) => number {
  const count = tag.getUint32(8);
  if (count === 0) return (x) => x;
  const values = Array.from({ length: Math.min(count, 65536) }, (_, i) => tag.getUint16(12 + 2 * i));
  if (count === 1) return (x) => x ** (values[0]! / 256);
  return (x) => {
    const at = x * (values.length - 1);
    const low = Math.min(Math.floor(at), values.length - 2);
    return (values[low]! + (at - low) * (values[low + 1]! - values[low]!)) / 65535;
  };
}

/** Functions 0 to 4 of table 68. */
function parametricCurve(tag: DataView): ((x: number) => number) | undefined {
  const kind = tag.getUint16(8);
  const counts = [1, 3, 4, 5, 7];
  const count = counts[kind];
  if (count === undefined) return undefined;
  const [g = 1, a = 1, b = 0, c = 0, d = 0, e = 0, f = 0] = Array.from({ length: count }, (_, i) =>
    fixed(tag, 12 + 4 * i),
  );
  const power = (x: number) => Math.max(0, a * x + b) ** g;
  switch (kind) {
    case 0:
      return (x) => x ** g;
    case 1:
      return (x) => (x >= -b / a ? power(x) : 0);
    case 2:
      return (x) => (x >= -b / a ? power(x) + c : c);
    case 3:
      return (x) => (x >= d ? power(x) : c * x);
    default:
      return (x) => (x >= d ? power(x) + e : c * x + f);
  }
}

function xyz(tag: DataView | undefined): number[] | undefined {
  return tag && [8, 12, 16].map((at) => fixed(tag, at));
}

/** s15Fixed16Number. */
const fixed = (view: DataView, at: number): number => view.getInt32(at) / 65536;

function readTags(profile: Uint8Array): Tags {
  const view = new DataView(profile.buffer, profile.byteOffset, profile.byteLength);
  const tags = new Map<string, DataView>();
  const count = Math.min(view.getUint32(128), 256);
  for (let i = 0; i < count; i++) {
    const at = 132 + 12 * i;
    // Out of bounds is a RangeError, which ends the reading of a damaged profile.
    tags.set(
      ascii(view, at),
      new DataView(view.buffer, view.byteOffset + view.getUint32(at + 4), view.getUint32(at + 8)),
    );
  }
  return tags;
}

const asciiAt = (bytes: Uint8Array, at: number): string => String.fromCharCode(...bytes.subarray(at, at + 4));
const ascii = (view: DataView, at: number): string =>
  String.fromCharCode(view.getUint8(at), view.getUint8(at + 1), view.getUint8(at + 2), view.getUint8(at + 3));
