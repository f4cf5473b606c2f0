// Row normalisation: LayerNorm (Ba et al. 2016) and RMSNorm (Zhang & Sennrich 2019) with any epilogue.
// Its own family because every transformer block starts with one, and the modulation that follows it then costs no pass over memory.

import { KontextError } from '../../../runtime/src/errors.ts';
import { floatLiteral, opCount } from '../expr/expr.ts';
import type { TargetProfile } from '../targets/types.ts';
import { ANY_ROWS, sizesFor, withSizes } from '../wgsl/sizes.ts';
import { emitEpilogue, epilogueWidth } from './epilogue.ts';
import { type Epilogue, type KernelSource, type MatrixView, viewLength } from './kernel.ts';
import { elementTypes, epilogueBytes, epilogueTypes, viewBytes } from './precision.ts';

export interface RowNormSpec {
  /** `layer`: (x − mean) / √(variance + eps); `rms`: x / √(mean(x²) + eps). Scale and shift belong to the epilogue. */
  kind: 'layer' | 'rms';
  eps: number;
  x: MatrixView;
  epilogue: Epilogue;
  /** Same rows and columns as `x`. */
  out: MatrixView;
}

/** Units of 4 (or 1) elements a thread keeps in registers; longer rows are read again in each pass. */
const REGISTER_UNITS = 8;
/** Threads of a workgroup on adapters that run on the CPU, each with a row of its own: a vector of most CPUs. */
const CPU_ROWS = 8;
/** Partial sums that one thread adds in the first of two reduction steps: √256, which balances the two. */
const FAN_IN = 16;

/**
 * y[r, :] = epilogue(norm(x[r, :]))
 *
 * One workgroup a row; each thread strides over the columns. All statistics are f32. The variance is the mean square of
 * the differences from the mean, a second pass over registers: E[x²] − E[x]² cancels on the large-mean rows of the
 * residual stream. On adapters that run on the CPU a thread takes a row and reads it in each pass, in loops of a length
 * that the driver cannot know (`group.z` is always 0): a tenth of the text, no barrier. Bindings: x, the epilogue's
 * operands, result.
 *
 * @throws KontextError `program-invalid` when the shapes of `x` and `out` differ
 */
export function rowNorm(spec: RowNormSpec, target: TargetProfile): KernelSource {
  const { x, out, epilogue } = spec;
  if (x.rows !== out.rows || x.cols !== out.cols) {
    throw new KontextError(
      'program-invalid',
      `rowNorm: x is [${x.rows}, ${x.cols}] and out [${out.rows}, ${out.cols}]; give both the same shape.`,
    );
  }
  const aligned = [x.cols, x.rowStride, x.offset].every((v) => v % 4 === 0);
  const width = aligned && epilogueWidth(epilogue, out) === 4 ? 4 : 1;
  const units = x.cols / width;
  const alone = target.software === true;
  const threads = alone ? CPU_ROWS : threadsFor(units, target);
  const steps = Math.ceil(units / threads);
  const ragged = units % threads !== 0;
  const kept = !alone && steps <= REGISTER_UNITS;
  const perGroup = alone ? CPU_ROWS : 1;
  const items = Math.ceil(x.rows / perGroup);
  const gridX = Math.min(items, target.limits.maxComputeWorkgroupsPerDimension);
  const gridY = Math.ceil(items / gridX);
  // A workgroup a row, in one line: nothing in the text depends on how many there are, and streams of one width share a kernel.
  const sizes = !alone && gridY === 1 ? ANY_ROWS : sizesFor(target);
  const epilogueText = emitEpilogue(epilogue, out, 1, width, sizes);

  const value = width === 4 ? 'vec4<f32>' : 'f32';
  const stored = width === 4 ? `vec4<${x.type}>` : x.type;
  const total = (text: string): string => (width === 4 ? `dot(${text}, vec4<f32>(1.0))` : text);
  const square = (text: string): string => (width === 4 ? `dot(${text}, ${text})` : `${text} * ${text}`);
  const load = `${value}(x[base + unit])`;
  const types = elementTypes('rowNorm', [x.type, ...epilogueTypes(epilogue, out)], target);

  // A pass visits the units of this thread; `body` sees the unit's number and its value `v`.
  const pass = (first: boolean, body: string): string => {
    if (alone)
      return `for (var unit = 0u; unit < ${sizes.of('units', units)} + group.z; unit++) { let v = ${load}; ${body} }`;
    if (!kept) {
      return `for (var unit = thread; unit < ${units}u; unit += ${threads}u) { let v = ${load}; ${body} }`;
    }
    const lines: string[] = [];
    for (let step = 0; step < steps; step++) {
      const guard = ragged && step === steps - 1 ? `if (unit < ${units}u) ` : '';
      const read = first ? `kept${step} = ${load}; ` : '';
      lines.push(`{ let unit = thread + ${step * threads}u; ${guard}{ ${read}let v = kept${step}; ${body} } }`);
    }
    return lines.join('\n  ');
  };
  const registers = kept ? Array.from({ length: steps }, (_, step) => `var kept${step} = ${value}();`).join(' ') : '';
  const inverse = floatLiteral(1 / x.cols);
  // Alone, a thread's sums are vectors: a quarter of the terms in each, so a quarter of the rounding.
  const sums = alone ? value : 'f32';
  const added = (name: string): string => (alone ? total(name) : `add_threads(${name}, thread)`);
  const term = (text: string): string => (alone ? text : total(text));
  const squareTerm = (text: string): string => (alone ? `${text} * ${text}` : square(text));
  const statistics =
    spec.kind === 'layer'
      ? `${pass(true, `sum += ${term('v')};`)}
  let mean = ${added('sum')} * ${inverse};
  var squares = ${sums}();
  ${pass(false, `let d = v - mean; squares += ${squareTerm('d')};`)}
  let scale = inverseSqrt(${added('squares')} * ${inverse} + ${floatLiteral(spec.eps)});`
      : `${pass(true, `sum += ${squareTerm('v')};`)}
  let scale = inverseSqrt(${added('sum')} * ${inverse} + ${floatLiteral(spec.eps)});`;
  const normalised = spec.kind === 'layer' ? '(v - mean) * scale' : 'v * scale';
  const column = width === 4 ? 'unit * 4u' : 'unit';

  const groups = Math.ceil(threads / FAN_IN);
  const sharedSum = `var<workgroup> partial: array<f32, ${threads}>;
var<workgroup> grouped: array<f32, ${groups}>;

// Sum over the workgroup's threads, the same in each.
fn add_threads(value: f32, thread: u32) -> f32 {
  partial[thread] = value;
  workgroupBarrier();
  if (thread < ${groups}u) {
    var s = 0.0;
    for (var i = 0u; i < ${Math.min(FAN_IN, threads)}u; i++) { s += partial[thread * ${FAN_IN}u + i]; }
    grouped[thread] = s;
  }
  workgroupBarrier();
  var s = 0.0;
  for (var i = 0u; i < ${groups}u; i++) { s += grouped[i]; }
  return s;
}`;
  const wgsl = `${types.enable}@group(0) @binding(0) var<storage, read> x: array<${stored}${sizes.length(Math.ceil(viewLength(x) / width), true)}>;
${epilogueText.declarations}
${alone ? '' : sharedSum}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = ${alone ? '(' : ''}group.x${gridY > 1 ? ` + group.y * ${sizes.of('grid_width', gridX)}` : ''}${alone ? `) * ${CPU_ROWS}u + thread` : ''};
  ${gridX * gridY * perGroup > x.rows ? `if (row >= ${sizes.of('rows', x.rows)}) { return; }` : ''}
  let base = row * ${sizes.of('x_stride', x.rowStride / width)} + ${sizes.of('x_offset', x.offset / width)};
  ${registers}
  var sum = ${sums}();
  ${statistics}
  ${pass(false, `let y = ${normalised}; ${epilogueText.store('row', column, 'y')}`)}
}
`;
  const elements = x.rows * x.cols;
  const made: KernelSource = {
    label: `row-norm ${spec.kind} ${x.cols}`,
    wgsl,
    bindings: ['read', ...epilogueText.bindings],
    workgroups: [gridX, gridY, 1],
    flops: elements * ((spec.kind === 'layer' ? 6 : 3) + opCount(epilogue.expr)),
    bytes: viewBytes(x) + epilogueBytes(epilogue, out),
    needs: {
      features: types.features,
      invocations: threads,
      workgroupBytes: alone ? 0 : 4 * (threads + groups),
    },
  };
  return withSizes(made, sizes);
}

/** A power of two that gives each thread about four units: enough loads in flight, few idle threads on short rows. */
function threadsFor(units: number, target: TargetProfile): number {
  const most = Math.min(target.limits.maxComputeInvocationsPerWorkgroup, target.limits.maxComputeWorkgroupSizeX, 256);
  let threads = 2 * FAN_IN;
  while (threads * 2 <= most && threads * 4 < units) threads *= 2;
  return threads;
}
