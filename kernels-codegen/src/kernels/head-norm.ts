// Per-head RMS normalisation of queries and keys with the rotary embedding behind it, in one pass.
// Its own family because a "row" here is one head of one token: far shorter than a workgroup, so heads share workgroups.

import { KontextError } from '../../../runtime/src/errors.ts';
import { floatLiteral } from '../expr/expr.ts';
import type { TargetProfile } from '../targets/types.ts';
import { ANY_ROWS, sizesFor, withSizes } from '../wgsl/sizes.ts';
import { type KernelSource, type MatrixView, viewLength } from './kernel.ts';
import { headNormFlops, type NormedHeads, rotated, tableProblem } from './normed-heads.ts';
import { elementTypes, viewBytes } from './precision.ts';

export interface HeadNormSpec extends NormedHeads {
  /** `[rows, heads·size]`. */
  x: MatrixView;
  /** Same shape as `x`; with `inPlace` the very same view. */
  out: MatrixView;
  /** x and out are one range of one buffer: one `read_write` binding, the last, serves both. */
  inPlace: boolean;
  scaleType: 'f32';
}

/** Threads that share a head, at most: 8 threads of 16 bytes read a 128-byte line together. */
const MAX_LANES = 8;
/** Threads of a workgroup on adapters that run on the CPU: a vector of most CPUs. */
const CPU_HEADS = 8;

/**
 * out[r, h] = rotate(x[r, h] / √(mean(x[r, h]²) + eps) · scale, table[r]), for every row r and head h
 *
 * RMS norm per head (Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion Parameters"), then the rotary
 * embedding of neighbouring pairs (Su et al. 2021): (a, b) → (a·cos − b·sin, a·sin + b·cos). A few threads share a head
 * and exchange partial sums through workgroup memory; on adapters that run on the CPU a thread has a head to itself and
 * reads it twice, in loops of a length that the driver cannot know (`group.z` is always 0). Statistics and rotation in f32.
 * Bindings: x (unless `inPlace`), scale, the table if any, out.
 *
 * @throws KontextError `program-invalid` for an odd head size or shapes that do not agree
 */
export function headNorm(spec: HeadNormSpec, target: TargetProfile): KernelSource {
  const { heads, size, x, out, rope } = spec;
  validate(spec);
  const views = [x.offset, x.rowStride, out.offset, out.rowStride, size];
  const table = rope ? [rope.offset, rope.rowStride, rope.length] : [];
  // Vectors where every head starts on one; otherwise the same kernel loads its pairs one by one.
  const vector = [...views, ...table].every((v) => v % 4 === 0);
  const unit = vector ? 4 : 2;
  const units = size / unit;
  const alone = target.software === true;
  const lanes = alone ? 1 : largestDivisor(units, MAX_LANES);
  const most = Math.min(target.limits.maxComputeInvocationsPerWorkgroup, target.limits.maxComputeWorkgroupSizeX, 256);
  const items = x.rows * heads;
  const perGroup = alone ? CPU_HEADS : Math.min(Math.floor(most / lanes), items);
  const threads = perGroup * lanes;
  const groups = Math.ceil(items / perGroup);
  const gridX = Math.min(groups, target.limits.maxComputeWorkgroupsPerDimension);
  const gridY = Math.ceil(groups / gridX);
  const guarded = gridX * gridY * perGroup > items;
  const steps = units / lanes;

  const types = elementTypes('headNorm', [x.type, out.type], target);
  // Whole workgroups in one line: nothing in the text depends on the number of rows, and streams share a kernel.
  const sizes = !alone && !guarded && gridY === 1 ? ANY_ROWS : sizesFor(target);
  const value = `vec${unit}<f32>`;
  const bindings: KernelSource['bindings'] = [];
  const declarations: string[] = [];
  const declare = (name: string, access: 'read' | 'read_write', type: string, length: number, byRows = true): void => {
    const element = vector ? `vec4<${type}>` : type;
    declarations.push(
      `@group(0) @binding(${bindings.length}) var<storage, ${access}> ${name}: array<${element}${sizes.length(Math.ceil(length / (vector ? 4 : 1)), byRows)}>;`,
    );
    bindings.push(access);
  };
  if (!spec.inPlace) declare('x', 'read', x.type, viewLength(x));
  declare('scale', 'read', 'f32', size, false);
  if (rope) declare('rope', 'read', 'f32', rope.length);
  declare('out', 'read_write', out.type, viewLength(out));

  // Indices count vectors or, without alignment, elements.
  const per = vector ? 4 : 1;
  const load = (array: string, index: string): string =>
    vector ? `${value}(${array}[${index}])` : `${value}(f32(${array}[${index}]), f32(${array}[${index} + 1u]))`;
  const store = (index: string, text: string): string => {
    const safe = out.type === 'f16' ? `clamp(${text}, ${value}(-65504.0), ${value}(65504.0))` : text;
    return vector
      ? `out[${index}] = vec4<${out.type}>(${safe});`
      : `let y = vec2<${out.type}>(${safe}); out[${index}] = y.x; out[${index} + 1u] = y.y;`;
  };
  const at = (step: number): string => `${alone ? 'i' : `(lane + ${step * lanes}u)`}${vector ? '' : ' * 2u'}`;
  const source = spec.inPlace ? 'out' : 'x';
  const each = (body: (step: number) => string): string =>
    alone
      ? `for (var i = 0u; i < ${sizes.of('units', units)} + group.z; i++) { ${body(0)} }`
      : Array.from({ length: steps }, (_, step) => body(step)).join('\n    ');

  const own = `base + ${at(0)}`;
  const total = alone
    ? `${guarded ? `if (item >= ${sizes.of('items', items)}) { return; }` : ''}
  var total = 0.0;
  ${each(() => `let v = ${load(source, own)}; total += dot(v, v);`)}`
    : `var sum = 0.0;
  ${Array.from({ length: steps }, (_, step) => `var v${step} = ${value}();`).join(' ')}
  ${guarded ? `if (item < ${sizes.of('items', items)}) ` : ''}{
    ${each((step) => `v${step} = ${load(source, `base + ${at(step)}`)}; sum += dot(v${step}, v${step});`)}
  }
  partial[thread] = sum;
  workgroupBarrier();
  ${guarded ? `if (item >= ${sizes.of('items', items)}) { return; }` : ''}
  var total = 0.0;
  for (var i = 0u; i < ${lanes}u; i++) { total += partial[thread - lane + i]; }`;

  const wgsl = `${types.enable}${declarations.join('\n')}
${alone ? '' : `var<workgroup> partial: array<f32, ${threads}>;`}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let lane = thread % ${lanes}u;
  let item = (group.x${gridY > 1 ? ` + group.y * ${sizes.of('grid_width', gridX)}` : ''}) * ${perGroup}u + thread / ${lanes}u;
  let row = item / ${sizes.of('heads', heads)};
  let head = item % ${sizes.of('heads', heads)};
  let base = row * ${sizes.of('x_stride', x.rowStride / per)} + head * ${sizes.of('size', size / per)} + ${sizes.of('x_offset', x.offset / per)};
  ${total}
  let norm = inverseSqrt(total * ${floatLiteral(1 / size)} + ${floatLiteral(spec.eps)});
  let to = row * ${sizes.of('out_stride', out.rowStride / per)} + head * ${sizes.of('size', size / per)} + ${sizes.of('out_offset', out.offset / per)};
  ${rope ? `let turn = row * ${sizes.of('rope_stride', rope.rowStride / per)} + ${sizes.of('rope_offset', rope.offset / per)};` : ''}
  {
    ${each((step) => {
      const v = alone ? load(source, own) : `v${step}`;
      const n = `let n = ${v} * norm * ${load('scale', at(step))};`;
      const t = rope ? `let t = ${load('rope', `turn + ${at(step)}`)};` : '';
      return `{ ${n} ${t} ${store(`to + ${at(step)}`, rope ? rotated(unit) : 'n')} }`;
    })}
  }
}
`;
  const elements = items * size;
  const made: KernelSource = {
    label: `head-norm ${heads}×${size}${rope ? ' rope' : ''}`,
    wgsl,
    bindings,
    workgroups: [gridX, gridY, 1],
    flops: headNormFlops(spec, elements),
    bytes: viewBytes(x) + viewBytes(out) + 4 * size * (rope ? x.rows + 1 : 1),
    needs: { features: types.features, invocations: threads, workgroupBytes: alone ? 0 : 4 * threads },
  };
  return withSizes(made, sizes);
}

function validate(spec: HeadNormSpec): void {
  const { heads, size, x, out, inPlace } = spec;
  const fail = (what: string): never => {
    throw new KontextError('program-invalid', `headNorm: ${what}`);
  };
  if (size % 2 !== 0) fail(`head size ${size} is odd; rotary pairs need an even one.`);
  if (x.cols !== heads * size) fail(`x has ${x.cols} columns, not ${heads} heads × ${size}.`);
  if (x.rows !== out.rows || x.cols !== out.cols) fail('x and out differ in shape.');
  if (inPlace && (x.type !== out.type || x.offset !== out.offset || x.rowStride !== out.rowStride)) {
    fail('in place, x and out must be the same view.');
  }
  const problem = tableProblem(spec, x.rows);
  if (problem) fail(`${problem}.`);
}

function largestDivisor(n: number, most: number): number {
  let d = Math.min(n, most);
  while (n % d !== 0) d--;
  return d;
}
