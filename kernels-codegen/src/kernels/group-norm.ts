// Group normalisation statistics of NHWC images, folded into one scale and one shift a channel.
// The normalised image is never stored: convolutions and expressions apply `x · scale + shift` where they read.

import { KontextError } from '../../../runtime/src/errors.ts';
import { floatLiteral } from '../expr/expr.ts';
import type { TargetProfile } from '../targets/types.ts';
import type { KernelSource, MatrixView } from './kernel.ts';
import { elementTypes, viewBytes, viewWidth } from './precision.ts';

/** Group normalisation (Wu and He 2018): each pixel set × group of neighbouring channels has mean 0 and variance 1. */
export interface GroupNormSpec {
  /** `[pixels, channels]`. */
  x: MatrixView;
  /** Divides the channels. */
  groups: number;
  /** Added to the (biased) variance. */
  eps: number;
  /** `[2, channels]` f32: row 0 = rstd·gamma, row 1 = beta − mean·rstd·gamma. */
  out: MatrixView;
  /** f32 scratch of the shape {@link groupNormPartialShape} gives. */
  partial: MatrixView;
}

/** Shape of the scratch: one row a chunk of pixels, the groups' means, then their sums of squared deviations. */
export function groupNormPartialShape(spec: Pick<GroupNormSpec, 'x' | 'groups'>): { rows: number; cols: number } {
  return { rows: Math.ceil(spec.x.rows / chunkPixels(spec.x)), cols: 2 * spec.groups };
}

/**
 * What differs between images of equal channels, as data: pixels, pixels of a chunk, chunks, channels of a group, and the
 * elements from row 0 of `out` to row 1. The autoencoder norms images of six shapes; as constants they would be twelve
 * kernels to compile instead of four, for passes that memory bounds.
 */
export function groupNormParameters(spec: GroupNormSpec): Uint32Array {
  const { rows: chunks } = groupNormPartialShape(spec);
  return Uint32Array.of(spec.x.rows, chunkPixels(spec.x), chunks, channelsPerGroup(spec), spec.out.rowStride);
}

/**
 * partial[chunk, g] = mean, partial[chunk, groups + g] = Σ (x − mean)², over one chunk of pixels.
 *
 * One workgroup reads a chunk of pixels × a block of whole groups; each invocation walks down its own one or four
 * channels with Welford's update, then one invocation a group merges the lanes. Sums of squares around the running
 * mean, in f32: E[x²] − mean² would lose every digit of the VAE's large-mean channels. Bindings: x,
 * {@link groupNormParameters}, partial.
 *
 * @throws KontextError `program-invalid` when the groups do not divide the channels, `limit-too-small` when one group is
 * wider than a workgroup can read
 */
export function groupNormPartial(spec: GroupNormSpec, target: TargetProfile): KernelSource {
  const { x, groups, partial } = spec;
  const { enable, features } = elementTypes('groupNorm', [x.type], target);
  const invocations = workgroupSize(target);
  const perGroup = channelsPerGroup(spec);
  const width = viewWidth(x);
  const blockGroups = groupsInBlock(groups, perGroup, width, invocations);
  const blockChannels = blockGroups * perGroup;
  const columns = blockChannels / width;
  const lanes = Math.floor(invocations / columns);
  const pixels = chunkPixels(x);
  const wide = width === 4 ? 'vec4<f32>' : 'f32';
  const element = width === 4 ? `vec4<${x.type}>` : x.type;
  const spill = (name: string, value: string): string =>
    width === 4
      ? [0, 1, 2, 3].map((i) => `${name}[slot + ${i}u] = ${value}[${i}];`).join('\n')
      : `${name}[slot] = ${value};`;
  // One loop over lanes and channels: nested constant loops would be unrolled, to seconds of compilation on some drivers.
  const merge = (body: string): string => `for (var i = 0u; i < ${lanes * perGroup}u; i++) {
    let l = i / ${perGroup}u;
    let n = f32((count + ${lanes - 1}u - l) / ${lanes}u);
    let slot = l * ${blockChannels}u + thread * ${perGroup}u + i % ${perGroup}u;
    ${body}
  }`;
  const wgsl = `${enable}@group(0) @binding(0) var<storage, read> x: array<${element}>;
@group(0) @binding(1) var<storage, read> parameters: array<u32, 5>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;
var<workgroup> means: array<f32, ${lanes * blockChannels}>;
var<workgroup> squares: array<f32, ${lanes * blockChannels}>;
@compute @workgroup_size(${invocations})
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
let first = group.x * parameters[1];
let count = min(parameters[1], parameters[0] - first);
let column = thread % ${columns}u;
let lane = thread / ${columns}u;
if (lane < ${lanes}u) {
  var mean = ${wide}(0.0);
  var square = ${wide}(0.0);
  var n = 0.0;
  for (var i = lane; i < count; i += ${lanes}u) {
    let value = ${wide}(x[${x.offset / width}u + (first + i) * ${x.rowStride / width}u + group.y * ${columns}u + column]);
    n += 1.0;
    let delta = value - mean;
    mean += delta * (1.0 / n);
    square += delta * (value - mean);
  }
  let slot = lane * ${blockChannels}u + column * ${width}u;
  ${spill('means', 'mean')}
  ${spill('squares', 'square')}
}
workgroupBarrier();
if (thread < ${blockGroups}u) {
  // Lane 0 always saw a pixel; deviations from its mean keep the merged mean as exact as the parts.
  let origin = means[thread * ${perGroup}u];
  var shift = 0.0;
  ${merge('shift += n * (means[slot] - origin);')}
  let mean = origin + shift / (f32(count) * ${floatLiteral(perGroup)});
  var total = 0.0;
  ${merge(`let delta = means[slot] - mean;
    total += squares[slot] + n * delta * delta;`)}
  let place = ${partial.offset}u + group.x * ${partial.rowStride}u + group.y * ${blockGroups}u + thread;
  partial[place] = mean;
  partial[place + ${groups}u] = total;
}
}
`;
  return {
    label: `groupNorm partial ${x.type} ${x.cols} channels`,
    wgsl,
    bindings: ['read', 'read', 'read_write'],
    workgroups: [Math.ceil(x.rows / pixels), groups / blockGroups, 1],
    flops: 5 * x.rows * x.cols,
    bytes: viewBytes(x) + viewBytes(partial),
    needs: { features, invocations, workgroupBytes: 8 * lanes * blockChannels },
  };
}

/**
 * Merges the chunks (Chan, Golub and LeVeque 1979) and folds gamma and beta in. One workgroup a group.
 * Bindings: partial, {@link groupNormParameters}, gamma (f32 `[channels]`), beta (f32 `[channels]`), out.
 */
export function groupNormFinish(spec: GroupNormSpec, target: TargetProfile): KernelSource {
  const { x, groups, eps, out, partial } = spec;
  const invocations = Math.min(64, workgroupSize(target));
  const { rows: chunks } = groupNormPartialShape(spec);
  const loop = (body: string): string => `for (var i = thread; i < chunks; i += ${invocations}u) {
  let n = f32(min(chunk_pixels, pixels - i * chunk_pixels) * per_group);
  let place = ${partial.offset}u + i * ${partial.rowStride}u + group.x;
  ${body}
}`;
  const wgsl = `@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read> parameters: array<u32, 5>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
var<workgroup> parts: array<vec2<f32>, ${invocations}>;
// Every invocation adds all parts itself: at this width cheaper to run, and far cheaper to compile, than a tree of barriers.
fn sum(component: u32) -> f32 {
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < ${invocations}u; i++) { total += parts[i][component]; }
  return total;
}
@compute @workgroup_size(${invocations})
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
let pixels = parameters[0];
let chunk_pixels = parameters[1];
let chunks = parameters[2];
let per_group = parameters[3];
let count = f32(pixels) * f32(per_group);
let origin = partial[${partial.offset}u + group.x];
var shift = 0.0;
${loop('shift += n * (partial[place] - origin);')}
parts[thread].x = shift;
let mean = origin + sum(0u) / count;
var square = 0.0;
${loop(`let delta = partial[place] - mean;
  square += partial[place + ${groups}u] + n * delta * delta;`)}
parts[thread].y = square;
let rstd = inverseSqrt(sum(1u) / count + ${floatLiteral(eps)});
for (var i = thread; i < per_group; i += ${invocations}u) {
  let channel = group.x * per_group + i;
  let scale = rstd * gamma[channel];
  result[${out.offset}u + channel] = scale;
  result[${out.offset}u + parameters[4] + channel] = beta[channel] - mean * scale;
}
}
`;
  return {
    label: `groupNorm finish ${groups} groups`,
    wgsl,
    bindings: ['read', 'read', 'read', 'read', 'read_write'],
    workgroups: [groups, 1, 1],
    flops: 8 * chunks * groups + 3 * x.cols,
    bytes: viewBytes(partial) + 8 * x.cols + viewBytes(out),
    needs: { invocations, workgroupBytes: 8 * invocations },
  };
}

/** Pixels of one chunk: at least 16 Ki elements a workgroup to cover its start, at most 1024 chunks to merge. */
function chunkPixels(x: MatrixView): number {
  return Math.max(Math.ceil(16384 / x.cols), Math.ceil(x.rows / 1024));
}

function channelsPerGroup({ x, groups }: GroupNormSpec): number {
  if (x.cols % groups) {
    throw new KontextError('program-invalid', `${groups} groups do not divide ${x.cols} channels.`);
  }
  return x.cols / groups;
}

const workgroupSize = ({ limits }: TargetProfile): number =>
  Math.min(256, limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX);

/** Most groups that one workgroup reads in one step of its invocations. */
function groupsInBlock(groups: number, perGroup: number, width: 1 | 4, invocations: number): number {
  for (let block = groups; block > 0; block--) {
    const channels = block * perGroup;
    if (groups % block === 0 && channels % width === 0 && channels <= invocations * width && block <= invocations) {
      return block;
    }
  }
  throw new KontextError('limit-too-small', `A norm group of ${perGroup} channels is wider than a workgroup reads.`);
}
