// The cheap ways from file to GPU, for whole rows in the file's order: bytes that stay as they are go straight into the weight and
// are only looked at, and 16-bit floats that become f16 take one light kernel, a word at a time.
import type { Kernel } from '../program/types.ts';
import type { ChunkPlan } from './plan.ts';
import { SEEN } from './seen.ts';
import { notesText } from './transcode.ts';
import type { SourceType } from './types/source-type.ts';

/** `copy`: the stored bytes are the file's. `halve`: a word of two elements becomes a word of two f16. */
export type PassKind = 'copy' | 'halve';

const WORKGROUP = 64;
/** Vectors of four words of each invocation, a workgroup apart: neighbours read neighbours. */
const TURNS = 4;
/** Bytes of a vector. */
const VECTOR = 16;

/** The pass that a chunk can take; undefined when it needs the general kernel. */
export function passOf({ type, format, scaled, params }: ChunkPlan): PassKind | undefined {
  const { outCols, srcCols, padIn, channels, taps, first, count, start } = params;
  if (type.reader.kind !== 'element' || outCols !== srcCols || padIn !== channels || taps !== 1 || first !== 0) {
    return undefined;
  }
  // Whole vectors: of the last one the rest may be the next chunk's, or the scales'.
  if ((count * type.bytes) % VECTOR !== 0 || (start * type.bytes) % VECTOR !== 0) return undefined;
  if (type.stored === format) return 'copy';
  if (scaled || type.stored !== undefined) return undefined;
  if (type.name.toLowerCase() === format) return 'copy';
  return format === 'f16' && type.reader.pair ? 'halve' : undefined;
}

/** The uniform buffer for bytes of the file that belong at `at` of the weight; `groupsX` is the grid's width. */
export function packPass(bytes: number, at: number, groupsX: number, slot: number): Uint32Array<ArrayBuffer> {
  return new Uint32Array([bytes / VECTOR, at / VECTOR, groupsX, slot]);
}

/** A grid over the bytes, folded into two dimensions at WebGPU's limit of 65535 workgroups. */
export function passGrid(bytes: number): [x: number, y: number] {
  const groups = Math.ceil(bytes / VECTOR / WORKGROUP / TURNS);
  const x = Math.min(groups, 32768);
  return [x, Math.ceil(groups / x)];
}

/**
 * Bindings: parameters (uniform); `copy`: the weight (read); `halve`: the file's words (read), the weight (read_write); then the
 * notes (read_write), as of checked transcodes.
 */
export function passKernel(type: SourceType, kind: PassKind): Kernel {
  if (type.reader.kind !== 'element') throw new Error(`${type.name} has no words of elements`);
  const { bits, pair } = type.reader;
  const hex = (value: number) => `0x${value.toString(16)}u`;
  // Every sign bit of a word.
  const signs = ~bits.magnitude >>> 0;
  const halve = kind === 'halve';
  return {
    label: `${kind} ${type.name}`,
    bindings: ['uniform', 'read', ...(halve ? (['read_write'] as const) : []), 'read_write'],
    wgsl: `
struct Params { vectors: u32, start: u32, groupsX: u32, slot: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> src: array<vec4<u32>>;
${halve ? '@group(0) @binding(2) var<storage, read_write> dst: array<vec4<u32>>;' : ''}
${notesText(halve ? 3 : 2)}
${halve ? `fn half(w: u32) -> u32 { return pack2x16float(clamp(${pair}, vec2<f32>(-65504.0), vec2<f32>(65504.0))); }` : ''}
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y * p.groupsX + group.x) * ${WORKGROUP * TURNS}u + lane;
  var sizes = vec4<u32>();
  var endless = vec4<u32>();
  for (var turn = 0u; turn < ${TURNS}u; turn++) {
    let i = first + turn * ${WORKGROUP}u;
    if (i < p.vectors) {
      let words = src[${halve ? 'i' : 'p.start + i'}];
      let size = words & vec4<u32>(${hex(bits.magnitude)});
      sizes |= size;
      endless |= size + vec4<u32>(${hex(bits.toInfinity)});
      ${halve ? 'dst[p.start + i] = vec4<u32>(half(words.x), half(words.y), half(words.z), half(words.w));' : ''}
    }
  }
  let some = sizes.x | sizes.y | sizes.z | sizes.w;
  let signs = (endless.x | endless.y | endless.z | endless.w) & ${hex(signs)};
  note(select(0u, ${SEEN.notFinite}u, signs != 0u) | select(0u, ${SEEN.notZero}u, some != 0u));
}
`,
  };
}
