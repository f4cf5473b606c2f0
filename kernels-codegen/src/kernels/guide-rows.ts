// Normalised attention guidance of rows: what attention gave for one prompt, pushed away from what it gave for another.
// Chen et al. 2025 (NAG, https://arxiv.org/abs/2505.21179): extrapolate, bound the length, mix with the original.

import { KontextError } from '../../../runtime/src/errors.ts';
import type { TargetProfile } from '../targets/types.ts';
import { type KernelSource, type MatrixView, viewLength } from './kernel.ts';
import { elementTypes, viewBytes, viewWidth } from './precision.ts';

export interface GuideRowsSpec {
  /** Attention's output for the prompt, z⁺. */
  positive: MatrixView;
  /** For the negative prompt, z⁻, of the same shape. */
  negative: MatrixView;
  /** f32 `[1, 4]`: scale s, bound τ, share α, and nothing. */
  settings: MatrixView;
  /** Of the same shape. */
  out: MatrixView;
}

/** Threads of a workgroup on adapters that run on the CPU, each with a row of its own. */
const CPU_ROWS = 8;
/** Threads that share a row elsewhere. */
const ROW_THREADS = 64;

/**
 * g = s·z⁺ − (s − 1)·z⁻, shortened to τ·‖z⁺‖₁ where its own L1 norm is longer, then out = α·g + (1 − α)·z⁺, row by row.
 *
 * One workgroup a row, in two passes; on adapters that run on the CPU a thread takes a row, in loops of a length that the driver cannot
 * know. All arithmetic is f32. A row of zeros stays one. Bindings: positive, negative, settings, result.
 *
 * @throws KontextError `program-invalid` when shapes differ
 */
export function guideRows(spec: GuideRowsSpec, target: TargetProfile): KernelSource {
  const { positive, negative, settings, out } = spec;
  const views = [positive, negative, out];
  if (views.some(({ rows, cols }) => rows !== out.rows || cols !== out.cols)) {
    const shapes = views.map(({ rows, cols }) => `[${rows}, ${cols}]`).join(', ');
    throw new KontextError('program-invalid', `guideRows: the shapes ${shapes} differ; give all three the same.`);
  }
  const width = Math.min(...views.map(viewWidth)) as 1 | 4;
  const types = elementTypes('guideRows', [positive.type, negative.type, out.type], target);
  const alone = target.software === true;
  const threads = alone ? CPU_ROWS : ROW_THREADS;
  const units = out.cols / width;
  const value = width === 4 ? 'vec4<f32>' : 'f32';
  const stored = ({ type }: MatrixView): string => (width === 4 ? `vec4<${type}>` : type);
  const length = (view: MatrixView): number => Math.ceil(viewLength(view) / width);
  const at = ({ rowStride, offset }: MatrixView): string => `row * ${rowStride / width}u + ${offset / width}u + unit`;
  const size = (text: string): string => (width === 4 ? `dot(abs(${text}), vec4<f32>(1.0))` : `abs(${text})`);
  const loop = alone
    ? `for (var unit = 0u; unit < ${units}u + group.z; unit++)`
    : `for (var unit = thread; unit < ${units}u; unit += ${threads}u)`;
  const both = `let p = ${value}(positive[${at(positive)}]); let g = s * p - (s - 1.0) * ${value}(negative[${at(negative)}]);`;
  const shared = `var<workgroup> partial: array<vec2<f32>, ${threads}>;

// Sums over the workgroup's threads, the same in each.
fn add_threads(value: vec2<f32>, thread: u32) -> vec2<f32> {
  partial[thread] = value;
  for (var half = ${threads / 2}u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (thread < half) { partial[thread] += partial[thread + half]; }
  }
  workgroupBarrier();
  return partial[0];
}
`;
  const perGroup = alone ? CPU_ROWS : 1;
  const items = Math.ceil(out.rows / perGroup);
  const gridX = Math.min(items, target.limits.maxComputeWorkgroupsPerDimension);
  const gridY = Math.ceil(items / gridX);
  const group = gridY > 1 ? `(group.x + group.y * ${gridX}u)` : 'group.x';
  const row = alone ? `${group} * ${CPU_ROWS}u + thread` : group;
  const wgsl = `${types.enable}@group(0) @binding(0) var<storage, read> positive: array<${stored(positive)}, ${length(positive)}>;
@group(0) @binding(1) var<storage, read> negative: array<${stored(negative)}, ${length(negative)}>;
@group(0) @binding(2) var<storage, read> settings: array<f32, ${viewLength(settings)}>;
@group(0) @binding(3) var<storage, read_write> result: array<${stored(out)}, ${length(out)}>;
${alone ? '' : shared}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = ${row};
  ${gridX * gridY * perGroup > out.rows ? `if (row >= ${out.rows}u) { return; }` : ''}
  let s = settings[${settings.offset}];
  let tau = settings[${settings.offset + 1}];
  let alpha = settings[${settings.offset + 2}];
  var norms = vec2<f32>();
  ${loop} { ${both} norms += vec2<f32>(${size('p')}, ${size('g')}); }
  ${alone ? '' : 'norms = add_threads(norms, thread);'}
  let share = alpha * min(1.0, tau * norms.x / max(norms.y, 1e-30));
  ${loop} { ${both} result[${at(out)}] = ${stored(out)}(share * g + (1.0 - alpha) * p); }
}
`;
  return {
    label: `guide-rows ${out.cols}`,
    wgsl,
    bindings: ['read', 'read', 'read', 'read_write'],
    workgroups: [gridX, gridY, 1],
    flops: out.rows * out.cols * 12,
    bytes: 2 * (viewBytes(positive) + viewBytes(negative)) + viewBytes(out),
    needs: { features: types.features, invocations: threads, workgroupBytes: alone ? 0 : 8 * threads },
  };
}
