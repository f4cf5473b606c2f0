// What a convolution is: geometry, formats, and what every variant of it must refuse.
// Separate from the variants so that each of them, and the chooser, reads one definition.

import { KontextError } from '../../../../runtime/src/errors.ts';
import type { WeightFormat } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { formatProblem, weightBytes } from '../../wgsl/weights.ts';
import type { Epilogue, MatrixView } from '../kernel.ts';
import { elementTypes, epilogueBytes, epilogueTypes, viewBytes, viewWidth } from '../precision.ts';

/**
 * y[(oy, ox), n] = epilogue(Σ_{ky, kx, c} x[(iy, ix), c] · w[n, (ky, kx, c)]) with iy = ⌊(oy·stride + ky − padTop) / upsample⌋
 *
 * Images are NHWC matrices `[height·width, channels]`. Reads outside the input are zero; the padding on the right and
 * at the bottom follows from the sizes.
 */
export interface Conv2dSpec {
  inHeight: number;
  inWidth: number;
  /** A multiple of 4: an RGB image is stored with a zero fourth channel. */
  cin: number;
  outHeight: number;
  outWidth: number;
  cout: number;
  kernel: 1 | 3;
  stride: 1 | 2;
  /** In pixels of the upsampled input. */
  padTop: number;
  padLeft: number;
  /** 2 repeats every input pixel in both directions (nearest), without storing the larger image. */
  upsample: 1 | 2;
  /** `[inHeight·inWidth, cin]`. */
  x: MatrixView;
  /** Layout `ohwi`: `rows` is cout, `cols` is kernel²·cin. */
  weight: { format: WeightFormat; rows: number; cols: number };
  /** Replaces x by silu(x·s[0, c] + s[1, c]) inside the image; padding stays 0. `view` is f32 `[2, cin]`. */
  prologue?: { kind: 'scale-shift-silu'; view: MatrixView };
  /** The image is what a norm and its activation gave: as a matmul's `normalised`. One with a `prologue` is by itself. */
  normalised?: true;
  epilogue: Epilogue;
  /** `[outHeight·outWidth, cout]`. */
  out: MatrixView;
}

/** Throws `program-invalid` for a specification that no variant could compute on `target`. */
export function checkConv2dSpec(spec: Conv2dSpec, target: TargetProfile): void {
  const fail = (why: string): never => {
    throw new KontextError('program-invalid', `conv2d ${describeConv2d(spec)}: ${why}`);
  };
  const { x, weight, out, prologue, epilogue, cin, cout } = spec;
  const k = spec.kernel ** 2 * cin;
  if (cin % 4) fail('the input channels must be a multiple of 4; pad them with zeros');
  if (x.rows !== spec.inHeight * spec.inWidth || x.cols !== cin) fail(`the input view is ${x.rows}×${x.cols}`);
  if (out.rows !== spec.outHeight * spec.outWidth || out.cols !== cout)
    fail(`the output view is ${out.rows}×${out.cols}`);
  if (weight.rows !== cout || weight.cols !== k)
    fail(`the weight is ${weight.rows}×${weight.cols}, expected ${cout}×${k}`);
  const problem = formatProblem(weight.format, k);
  if (problem) fail(problem);
  if (viewWidth(x) !== 4) fail('rows of the input must start on a multiple of four elements');
  if (prologue && (prologue.view.cols !== cin || prologue.view.rows !== 2 || viewWidth(prologue.view) !== 4)) {
    fail(`the prologue needs an aligned 2×${cin} matrix`);
  }
  elementTypes('conv2d', [x.type, ...epilogueTypes(epilogue, out)], target);
  const buffers = 2 + (prologue ? 1 : 0) + epilogue.operands.length + (epilogue.inPlace === undefined ? 1 : 0);
  if (buffers > target.limits.maxStorageBuffersPerShaderStage) {
    fail(`binds ${buffers} storage buffers, the target allows ${target.limits.maxStorageBuffersPerShaderStage}`);
  }
}

/**
 * Type of the staged operands. f16 only when nothing is lost by it: a raw f32 image may exceed f16's range, a normalised
 * one cannot, and f32 weights were stored so for their precision.
 */
export function conv2dElement(spec: Conv2dSpec, target: TargetProfile): 'f32' | 'f16' {
  return hasTier(target, 'f16') && !target.wideTiles && conv2dHalves(spec) ? 'f16' : 'f32';
}

/** Both operands lose nothing in f16. */
export const conv2dHalves = (spec: Conv2dSpec): boolean =>
  spec.weight.format !== 'f32' && (spec.x.type === 'f16' || spec.prologue !== undefined);

/** True when the text needs `enable f16`. */
export function conv2dUsesF16(spec: Conv2dSpec, target: TargetProfile): boolean {
  const types = [spec.x.type, ...epilogueTypes(spec.epilogue, spec.out), conv2dElement(spec, target)];
  return hasTier(target, 'f16') && (spec.weight.format === 'f16' || types.includes('f16'));
}

/** Multiply-adds count as two; taps on the padding count too. */
export const conv2dFlops = (spec: Conv2dSpec): number =>
  2 * spec.outHeight * spec.outWidth * spec.cout * spec.weight.cols;

/** Bytes that must move at least once: input, weight, prologue, operands, output. */
export function conv2dBytes({ x, weight, prologue, epilogue, out }: Conv2dSpec): number {
  const inputs = viewBytes(x) + weightBytes(weight.format, weight.rows, weight.cols);
  return inputs + (prologue ? viewBytes(prologue.view) : 0) + epilogueBytes(epilogue, out);
}

/** Everything that changes the kernel's cost, in a line; also its key among tuned schedules. */
export function describeConv2d(spec: Conv2dSpec): string {
  const { inHeight, inWidth, cin, cout, kernel, stride, upsample, prologue } = spec;
  const notes = [
    `${inHeight}×${inWidth}×${cin}→${cout}`,
    `${kernel}×${kernel}`,
    stride === 2 ? 'stride 2' : '',
    upsample === 2 ? 'upsampled' : '',
    prologue ? 'normalised' : '',
    spec.weight.format,
  ];
  return notes.filter(Boolean).join(' ');
}
