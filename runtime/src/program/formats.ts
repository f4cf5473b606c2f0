// How a weight matrix is stored on the GPU: one table that the compiler, the loader of weights, packing and planning read.
// A format is codes plus scales; a row added here is all that a further format of known kinds needs.

/** How the codes of a format are laid out, in the order of the elements. */
export type CodeKind =
  /** IEEE values, nothing to unpack. */
  | 'f32'
  | 'f16'
  /** Signed bytes. */
  | 'byte'
  /** Word `i` holds elements `8i … 8i+7`, the lowest nibble first. */
  | 'nibble'
  /** As `nibble`, each an index into {@link NIBBLE_LEVELS}. */
  | 'level'
  /** The low four bits of all elements as `nibble`, then the high two: word `i` holds elements `16i … 16i+15`. */
  | 'six'
  /** 8-bit floats: sign, 4 exponent bits, 3 mantissa bits, no infinity; and sign, 5, 2. */
  | 'e4m3'
  | 'e5m2';

/** What follows the codes, in this order, and turns a code into a value. */
export type ScaleKind =
  | 'none'
  /** An f16 for each block of 32: value = code · scale. */
  | 'half'
  /** Two f16 for each block of 32 in one word: value = code · first + second. */
  | 'pair'
  /**
   * Two signed bytes for each group of 32 (or 16), then two f16 for each block of 256:
   * value = code · (byte₀ · half₀) − byte₁ · half₁. Needs rows of whole blocks of 256.
   */
  | 'group32'
  | 'group16'
  /** An f32 for each row: value = code · scale. */
  | 'row';

export interface StoredFormat {
  codes: CodeKind;
  scales: ScaleKind;
  /** Subtracted from a `nibble` or `six` code. */
  zero: number;
}

/** Of IQ4_NL and IQ4_XS in ggml: more levels near zero, where weights are. */
export const NIBBLE_LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

const format = (codes: CodeKind, scales: ScaleKind, zero = 0): StoredFormat => ({ codes, scales, zero });

/**
 * All formats of a matrix `[rows, cols]`, row-major, `cols` contiguous.
 *
 * | format | holds without loss | bits a weight |
 * | --- | --- | --- |
 * | `f32`, `f16` | floats; f16 needs an even number of elements | 32, 16 |
 * | `q8` | Q8_0 | 8.5 |
 * | `q4` | Q4_0 | 4.5 |
 * | `q4m` | Q4_1 | 5 |
 * | `q6`, `q6m` | Q5_0, Q5_1 | 6.5, 7 |
 * | `q3k` | Q2_K, Q3_K | 5.125 |
 * | `q4k` | Q4_K | 4.625 |
 * | `q6k` | Q5_K, Q6_K | 7.125 |
 * | `iq4`, `iq4k` | IQ4_NL, IQ4_XS | 4.5, 4.625 |
 * | `e4m3`, `e5m2` | 8-bit floats, with a scale for the tensor or each row | 8 and 32 a row |
 */
export const STORED_FORMATS = {
  f32: format('f32', 'none'),
  f16: format('f16', 'none'),
  q8: format('byte', 'half'),
  q4: format('nibble', 'half', 8),
  q4m: format('nibble', 'pair'),
  q6: format('six', 'half', 32),
  q6m: format('six', 'pair'),
  q3k: format('nibble', 'group16', 8),
  q4k: format('nibble', 'group32'),
  q6k: format('six', 'group16', 32),
  iq4: format('level', 'half'),
  iq4k: format('level', 'group32'),
  e4m3: format('e4m3', 'row'),
  e5m2: format('e5m2', 'row'),
} satisfies Record<string, StoredFormat>;

/** A name of {@link STORED_FORMATS}. */
export type WeightFormat = keyof typeof STORED_FORMATS;

export const WEIGHT_FORMATS = Object.keys(STORED_FORMATS) as WeightFormat[];

/** A contiguous part of a stored matrix: `bytes` for every `elements`, or for every row when that is 0. */
interface Section {
  bytes: number;
  elements: number;
}

const CODE_SECTIONS: Record<CodeKind, Section[]> = {
  f32: [{ bytes: 4, elements: 1 }],
  f16: [{ bytes: 2, elements: 1 }],
  byte: [{ bytes: 1, elements: 1 }],
  nibble: [{ bytes: 4, elements: 8 }],
  level: [{ bytes: 4, elements: 8 }],
  six: [
    { bytes: 4, elements: 8 },
    { bytes: 4, elements: 16 },
  ],
  e4m3: [{ bytes: 1, elements: 1 }],
  e5m2: [{ bytes: 1, elements: 1 }],
};

const SCALE_SECTIONS: Record<ScaleKind, Section[]> = {
  none: [],
  half: [{ bytes: 2, elements: 32 }],
  pair: [{ bytes: 4, elements: 32 }],
  group32: [
    { bytes: 2, elements: 32 },
    { bytes: 4, elements: 256 },
  ],
  group16: [
    { bytes: 2, elements: 16 },
    { bytes: 4, elements: 256 },
  ],
  row: [{ bytes: 4, elements: 0 }],
};

/** A row must have a multiple of this many elements. */
const COLUMNS: Record<ScaleKind, number> = { none: 1, half: 32, pair: 32, group32: 256, group16: 256, row: 4 };

/** The columns of a matrix in this format are a multiple of this. */
export const columnsUnit = (name: WeightFormat): number => COLUMNS[STORED_FORMATS[name].scales];

/** True for formats whose values are codes and scales: they save memory, and want rows of whole blocks. */
export const isQuantised = (name: WeightFormat): boolean => STORED_FORMATS[name].scales !== 'none';

/** Where each part of a stored matrix starts, in bytes, and where all of it ends, in whole words. */
export interface StoredLayout {
  /** Starts of the code sections, then of the scale sections; each a multiple of 4. */
  sections: number[];
  bytes: number;
}

/** The byte layout of a matrix; `cols` is a multiple of {@link columnsUnit}. */
export function storedLayout(name: WeightFormat, rows: number, cols: number): StoredLayout {
  const { codes, scales } = STORED_FORMATS[name];
  let end = 0;
  const sections = [...CODE_SECTIONS[codes], ...SCALE_SECTIONS[scales]].map(({ bytes, elements }) => {
    const start = Math.ceil(end / 4) * 4;
    end = start + (elements === 0 ? rows : (rows * cols) / elements) * bytes;
    return start;
  });
  return { sections, bytes: Math.ceil(end / 4) * 4 };
}

/** Bits a weight takes, row scales left out. */
export function storedBits(name: WeightFormat): number {
  const { codes, scales } = STORED_FORMATS[name];
  const sections = [...CODE_SECTIONS[codes], ...SCALE_SECTIONS[scales]].filter(({ elements }) => elements > 0);
  return sections.reduce((sum, { bytes, elements }) => sum + (8 * bytes) / elements, 0);
}
