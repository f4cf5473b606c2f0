// Products summed in packed f16 where that is safe: 16 at a time, then added to the f32 sums. AMD, Intel and Qualcomm do two such products where
// they do one in f32. What makes it safe is here: a bound on what each tile holds, looked at while it is staged.

import { hasTier, type TargetProfile } from '../targets/types.ts';
import type { Copy } from './staging.ts';

/** Products between two additions to the f32 sums. */
const CHUNK = 16;

/**
 * A tile is summed in f16 where no value of its operands exceeds these. 16 · 496 · 7.75 = 61504; each of 32 roundings adds a 2048th at most, which makes
 * 62473 of it, and f16 ends at 65504: nothing overflows on the way, whatever the order and the signs.
 * Normalised rows of 3072 are at most 55 before their modulation, and weights of trained layers are below two.
 */
export const PACKED_LIMITS = { left: 496, right: 7.75 } as const;

/** Workgroup memory of the note that a tile's values are too large. */
export const PACKED_BYTES = 16;

/** A product's layer: `normalised` as its spec has it, and whether both operands lose nothing in f16. */
export interface PackableLayer {
  normalised: true | undefined;
  halves: boolean;
}

/** Whether a layer's sums may be packed on a target. */
export const maySumPacked = (target: TargetProfile, layer: PackableLayer): boolean =>
  hasTier(target, 'f16') && layer.normalised === true && layer.halves;

/** Whether the target's choosers offer packed sums for a layer: to the estimate, or to measuring only. */
export function packedSumsOf(target: TargetProfile, layer: PackableLayer): 'chosen' | 'measured' | 'never' {
  if (target.software || target.packedSums === false || !maySumPacked(target, layer)) return 'never';
  return target.packedSums ? 'chosen' : 'measured';
}

/** A schedule with packed sums. */
export const packed = <S extends object>(schedule: S): S & { packed: true } => ({ ...schedule, packed: true });

export interface PackedBlock {
  /** Results of a thread: `c<row>_<vector>`, vectors of four f32. */
  rows: number;
  colVectors: number;
  /** Vectors along k in a tile; element `[row][k / 4]` of `tileA`, `[k][column / 4]` of `tileB`. */
  kVectors: number;
  strideB: number;
  threadsM: number;
  threadsN: number;
  /** WGSL u32 that differs from one tile to the next, and is never 0. */
  step: string;
  /** WGSL condition of tiles that are summed in f32 whatever they hold, if there are any. */
  always?: string | undefined;
  /** Text that makes a loop's bound unknown, for drivers that run on the CPU. */
  open: string;
}

/** At module scope. */
export const PACKED_DECLARATIONS = `// The last step whose tile has values too large for f16 sums.
var<workgroup> beyond: atomic<u32>;`;

/** Looks at what a copy stages, of type `vec4<f16>`. */
export function watched(copy: Copy, side: 'left' | 'right'): Copy {
  return {
    ...copy,
    item: (...place) => {
      const item = copy.item(...place);
      const look = (v: string): string => `${side}_most = max(${side}_most, abs(${v}));`;
      return { ...item, store: (names) => `${item.store(names)}\n${names.map(look).join(' ')}` };
    },
  };
}

/** The staging of one step, with what {@link watched} copies need around it. */
export const watchedStep = (staging: string, step: string): string => `var left_most = vec4<f16>();
var right_most = vec4<f16>();
${staging}
if (any(left_most > vec4<f16>(${PACKED_LIMITS.left}.0)) || any(right_most > vec4<f16>(${PACKED_LIMITS.right}))) { atomicStore(&beyond, ${step}); }`;

/** The products of one tile. @param wide the same with f32 sums */
export function packedProducts(o: PackedBlock, wide: string): string {
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const sums = each(o.rows, (i) => each(o.colVectors, (j) => `${i}_${j}`)).flat();
  const right = each(4, (kk) =>
    each(o.colVectors, (j) => {
      const at = `q * ${4 * o.strideB}u + ${kk * o.strideB}u + tx + ${j * o.threadsN}u`;
      return `let b${kk}_${j} = tileB[${at}];`;
    }),
  ).flat();
  const products = each(o.rows, (i) => [
    `let l${i} = tileA[(ty + ${i * o.threadsM}u) * ${o.kVectors}u + q];`,
    ...[...'xyzw'].flatMap((lane, kk) => each(o.colVectors, (j) => `h${i}_${j} += l${i}.${lane} * b${kk}_${j};`)),
  ]).flat();
  const chunk = CHUNK / 4;
  const chunks = each(Math.ceil(o.kVectors / chunk), (i) => {
    const end = Math.min((i + 1) * chunk, o.kVectors);
    return `{
${sums.map((s) => `var h${s} = vec4<f16>();`).join(' ')}
for (var q = ${i * chunk}u; q < ${end}u${o.open}; q++) {
${[...right, ...products].join('\n')}
}
${sums.map((s) => `c${s} += vec4<f32>(h${s});`).join(' ')}
}`;
  });
  return `if (atomicLoad(&beyond) == ${o.step}${o.always ? ` || ${o.always}` : ''}) {
${wide}
} else {
${chunks.join('\n')}
}`;
}
