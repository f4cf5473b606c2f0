// Index permutations between images, tensors and tokens.
// They are the only kernels whose reads and writes differ in shape without arithmetic, so no expression can carry them.

import { KontextError } from '../../../runtime/src/errors.ts';
import type { TargetProfile } from '../targets/types.ts';
import { flatGrid } from '../wgsl/grid.ts';
import { bytesOf, type KernelSource, type MatrixView, viewLength } from './kernel.ts';
import { elementTypes } from './precision.ts';

/** `height` and `width` are those of the larger grid: latent cells for `pack` and `unpack`, pixels for the others. */
export type RearrangeSpec =
  /** `x` `[height·width, channels]` → `out` `[height/2 · width/2, 4·channels]`; token channel = c·4 + dy·2 + dx. */
  | { kind: 'pack'; height: number; width: number; channels: number; x: MatrixView; out: MatrixView }
  /** `x` `[height/2 · width/2, 4·channels]` → `out` `[height·width, channels]`. */
  | { kind: 'unpack'; height: number; width: number; channels: number; x: MatrixView; out: MatrixView }
  /** rgba8 words `[height·width]` (r in the low byte) → `out` `[height·width, 4]` = 2·v/255 − 1 for r, g, b, then 0. */
  | { kind: 'image-to-tensor'; height: number; width: number; out: MatrixView }
  /** `x` `[height·width, ≥ 3]` in [−1, 1] → rgba8 words `[height·width]`, rounded half to even, alpha 255. */
  | { kind: 'tensor-to-image'; height: number; width: number; x: MatrixView };

/**
 * Copies elements to their new places. Bindings: the source, then the result.
 *
 * `pack` and `unpack`: one invocation moves the 2×2 patch of one channel, neighbouring invocations take neighbouring
 * channels. Image conversions: one invocation a pixel. Values outside [−1, 1] saturate in `tensor-to-image`.
 *
 * @throws KontextError `program-invalid` when a patch grid has an odd side or a tensor fewer than 3 channels
 */
export function rearrange(spec: RearrangeSpec, target: TargetProfile): KernelSource {
  const { source, result, types, items, body } = describe(spec);
  const { enable, features } = elementTypes('rearrange', types, target);
  const grid = flatGrid(items, target);
  return {
    label: `rearrange ${spec.kind} ${spec.height}×${spec.width}`,
    wgsl: `${enable}@group(0) @binding(0) var<storage, read> source: ${source.text};
@group(0) @binding(1) var<storage, read_write> result: ${result.text};
${grid.open}
${body}
}
`,
    bindings: ['read', 'read_write'],
    workgroups: grid.workgroups,
    flops: 0,
    bytes: source.bytes + result.bytes,
    needs: { features, invocations: grid.invocations, workgroupBytes: 0 },
  };
}

interface Side {
  text: string;
  bytes: number;
}

interface Permutation {
  source: Side;
  result: Side;
  types: ('f32' | 'f16')[];
  items: number;
  body: string;
}

function describe(spec: RearrangeSpec): Permutation {
  const { height, width } = spec;
  const pixels = height * width;
  const words: Side = { text: `array<u32, ${pixels}>`, bytes: pixels * 4 };
  const matrix = (v: MatrixView, cols: number): Side => ({
    text: `array<${v.type}, ${viewLength(v)}>`,
    bytes: v.rows * cols * bytesOf(v.type),
  });
  switch (spec.kind) {
    case 'image-to-tensor': {
      const { out } = spec;
      const base = `${out.offset}u + item * ${out.rowStride}u`;
      const channel = (shift: number): string => `${out.type}(f32((rgba >> ${shift}u) & 255u) / 255.0 * 2.0 - 1.0)`;
      return {
        source: words,
        result: matrix(out, 4),
        types: [out.type],
        items: pixels,
        body: `let rgba = source[item];
let base = ${base};
result[base] = ${channel(0)};
result[base + 1u] = ${channel(8)};
result[base + 2u] = ${channel(16)};
result[base + 3u] = 0.0;`,
      };
    }
    case 'tensor-to-image': {
      const { x } = spec;
      if (x.cols < 3) {
        throw new KontextError('program-invalid', `An image needs 3 channels, the tensor has ${x.cols}.`);
      }
      return {
        source: matrix(x, 3),
        result: words,
        types: [x.type],
        items: pixels,
        body: `let base = ${x.offset}u + item * ${x.rowStride}u;
let x = vec3<f32>(f32(source[base]), f32(source[base + 1u]), f32(source[base + 2u]));
let v = vec3<u32>(round(clamp(x * 0.5 + 0.5, vec3<f32>(0.0), vec3<f32>(1.0)) * 255.0));
result[item] = v.x | (v.y << 8u) | (v.z << 16u) | (255u << 24u);`,
      };
    }
    case 'pack':
    case 'unpack': {
      const { channels, x, out } = spec;
      if (height % 2 || width % 2) {
        throw new KontextError('program-invalid', `2×2 patches need even sides, the grid is ${height}×${width}.`);
      }
      const [cells, tokens] = spec.kind === 'pack' ? [x, out] : [out, x];
      const [cellArray, tokenArray] = spec.kind === 'pack' ? ['source', 'result'] : ['result', 'source'];
      const moves = [0, 1, 2, 3].map((patch) => {
        const cell = `${cellArray}[cell + ${((patch >> 1) * width + (patch & 1)) * cells.rowStride}u]`;
        const place = `${tokenArray}[place + ${patch}u]`;
        return spec.kind === 'pack'
          ? `${place} = ${convert(cell, x.type, out.type)};`
          : `${cell} = ${convert(place, x.type, out.type)};`;
      });
      return {
        source: matrix(x, x.cols),
        result: matrix(out, out.cols),
        types: [x.type, out.type],
        items: (pixels / 4) * channels,
        body: `let token = item / ${channels}u;
let channel = item % ${channels}u;
let y = token / ${width / 2}u * 2u;
let x = token % ${width / 2}u * 2u;
let cell = ${cells.offset}u + (y * ${width}u + x) * ${cells.rowStride}u + channel;
let place = ${tokens.offset}u + token * ${tokens.rowStride}u + channel * 4u;
${moves.join('\n')}`,
      };
    }
    default:
      throw spec satisfies never;
  }
}

// Conversion to f16 outside its range is undefined in WGSL.
const convert = (value: string, from: 'f32' | 'f16', to: 'f32' | 'f16'): string =>
  from === 'f32' && to === 'f16' ? `f16(clamp(${value}, -65504.0, 65504.0))` : `${to}(${value})`;
