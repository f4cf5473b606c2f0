// Products summed in f16, 16 at a time, against the float64 oracle: the matmul's and the convolution's awkward shapes, values at the edge
// of f16's range, and tiles beyond it, which are summed in f32.
import { beforeAll, describe, expect, it } from 'vitest';
import { type Conv2dSchedule, conv2d } from '../../kernels-codegen/src/kernels/conv2d/index.ts';
import { type MatmulSchedule, type MatmulSpec, matmul } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import { PACKED_LIMITS } from '../../kernels-codegen/src/kernels/packed.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { isQuantised } from '../../runtime/src/program/formats.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { describeShape, HALF, type MatmulShape, matmulSpec, rowScale } from '../support/matmul-shapes.ts';
import { CONV2D_SHAPES, type Conv2dShape, checkConv2d, conv2dSpec } from '../support/oracle-conv2d.ts';
import { checkMatmul, matmulReference, matmulTolerance } from '../support/oracle-matmul.ts';
import { runSupported } from '../support/run-supported.ts';
import { decode, encode, gaussian, roundTo } from '../support/views.ts';

/** As a GPU has it: straight text, which a CPU's driver compiles for long. The other has loops that it cannot unroll. */
const straight: TargetProfile = { name: 'test', tier: 'f16', limits: BASELINE_LIMITS, packedSums: true };
const target: TargetProfile = { ...straight, software: true };
/** Two chunks of 16 a step, one, and one of 12: what a step's last chunk may be. */
const tiles: MatmulSchedule[] = [32, 16, 12].map((tileK) => ({
  ...{ variant: 'tiled', threadsM: 4, threadsN: 4, rows: 2, cols: 4 },
  ...{ tileK, packed: true },
}));
const [deep, one, uneven] = tiles as [MatmulSchedule, MatmulSchedule, MatmulSchedule];

describe('sums of 16 products in f16', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  const check = (shape: MatmulShape, schedule: MatmulSchedule, profile = target): Promise<void> => {
    const spec = matmulSpec({ ...shape, normalised: true });
    const halves = (spec.out.type === 'f16' ? 1 : 0) + (isQuantised(spec.weight.format) ? 1 : 0);
    return checkMatmul(gpu, spec, profile, matmulTolerance(spec, halves, true), schedule);
  };
  // f32 weights have no f16 tile; the first shape has nothing that the others have not.
  const shapes: MatmulShape[] = [
    ...HALF.filter(
      ({ format, besideFormat, k }, i) =>
        i > 0 && format !== 'f32' && !(besideFormat ? format === 'q8' : Array.isArray(k)),
    ),
    { m: 21, n: 18, k: [9, 16, 7], type: 'f16', format: 'f16', epilogue: rowScale },
  ];
  it.each(shapes.map((shape) => [describeShape(shape), shape] as const))('matmul %s', (_, shape) => check(shape, one));
  it.each([deep, uneven])('matmul with schedule %o', (schedule) =>
    check({ m: 33, n: 40, k: [40, 24], type: 'f16', format: 'f16', out: 'f16' }, schedule),
  );
  it('matmul in straight text', () => {
    const few: MatmulSchedule = {
      variant: 'tiled',
      threadsM: 4,
      threadsN: 4,
      rows: 1,
      cols: 4,
      tileK: 8,
      packed: true,
    };
    return check(
      { m: 6, n: 20, k: [24, 8], type: 'f16', format: 'f16', beside: 8, besideFormat: 'f16' },
      few,
      straight,
    );
  });
  it('matmul in f16 tiles where others are widened', () =>
    check({ m: 33, n: 40, k: 40, type: 'f16', format: 'f16' }, one, { ...target, wideTiles: true }));

  const small: Conv2dSchedule = {
    variant: 'tiled',
    threadsM: 8,
    threadsN: 2,
    rows: 2,
    cols: 4,
    tileK: 16,
    packed: true,
  };
  const images = ['ragged pixels and channels', 'upsampled', 'stride 2, odd sides'] as const;
  it.each(images)('conv2d: %s', (name) =>
    checkConv2d(gpu, { ...CONV2D_SHAPES[name], x: 'f16', weight: 'f16', out: 'f16', normed: true }, target, small),
  );
  it.each([20, 32])('conv2d with steps of %i', (tileK) =>
    checkConv2d(gpu, { height: 7, width: 5, cin: 32, cout: 20, x: 'f16', weight: 'f16', normed: true }, target, {
      ...small,
      tileK,
    }),
  );
  it('conv2d that normalises an f32 image itself, quantised', () =>
    checkConv2d(gpu, { height: 6, width: 6, cin: 32, cout: 16, normalised: true, weight: 'q8' }, target, small));

  /** Runs a matmul of given values. @returns results and the oracle's, and Σ|a·b| of each */
  async function compute(
    shape: Pick<MatmulShape, 'm' | 'n' | 'k'>,
    a: (row: number, k: number) => number,
    b: (col: number, k: number) => number,
    schedule = one,
  ): Promise<{ got: Float64Array; want: Float64Array; size: Float64Array }> {
    const spec: MatmulSpec = matmulSpec({ ...shape, type: 'f16', format: 'f16', normalised: true });
    const [m, n, k] = [spec.m, spec.n, spec.weight.cols];
    const matrix = (rows: number, f: typeof a) =>
      Float64Array.from({ length: rows * k }, (_, i) => roundTo('f16', f(Math.floor(i / k), i % k)));
    const [left, right] = [matrix(m, a), matrix(n, b)];
    const buffers = [encode('f16', left), encode('f16', right), new Float32Array(m * n)];
    const result = await runSupported(gpu, matmul(spec, target, schedule), buffers);
    const of = (x: Float64Array, y: Float64Array) => matmulReference(spec, [x], y);
    return {
      got: decode('f32', result.get(2)!),
      want: of(left, right),
      size: of(left.map(Math.abs), right.map(Math.abs)),
    };
  }
  /** Largest error, relative to the sum of the products' sizes. */
  const worst = ({ got, want, size }: Awaited<ReturnType<typeof compute>>): number =>
    got.reduce((most, value, i) => {
      const error = Math.abs(value - want[i]!) / size[i]!;
      return Math.max(error, most);
    }, 0);
  const shape = { m: 9, n: 20, k: 96 };
  // A chunk's partial sums are at most its products' sizes, and each of 32 roundings to nearest takes 2⁻¹² of one.
  const bound = 32 * 2 ** -12;

  it.each([deep, one])('the largest values that are summed so do not overflow: %o', async (schedule) => {
    const { left, right } = PACKED_LIMITS;
    const all = await compute(
      shape,
      () => left,
      () => right,
      schedule,
    );
    expect(worst(all)).toBeLessThan(bound);
    const signs = gaussian(3);
    const mixed = await compute(
      shape,
      () => Math.sign(signs()) * left,
      () => Math.sign(signs()) * right,
      schedule,
    );
    expect(worst(mixed)).toBeLessThan(bound);
  });

  it.each([
    ['of the left', 65504, 0.5],
    ['of the right', 0.5, 65504],
    ['of both', 65504, 65504],
    ['a little too large', 520, 8],
  ])('values %s beyond the limit are summed in f32', async (_, left, right) => {
    const next = gaussian(7);
    const result = await compute(
      shape,
      () => next() && left * Math.sign(next()),
      () => right * (1 + (next() > 0 ? 0 : -2)),
    );
    // As exact as f32 sums are: no f16 sum took part.
    expect(worst(result)).toBeLessThan(96 * 2 ** -24);
    expect(
      worst(
        await compute(
          shape,
          () => left,
          () => right,
        ),
      ),
    ).toBeLessThan(96 * 2 ** -24);
  });

  it('goes by tiles: one value too large, and the steps before and after it are packed', async () => {
    // 2000 and 1/8 in a chunk: f16 loses the small ones, f32 does not.
    const a = (large: number | undefined) => (row: number, k: number) =>
      k === large && row === 3 ? 1000 : k % 16 === 0 ? 400 : 1 / 8;
    const b = (_: number, k: number) => (k % 16 === 0 ? 5 : 1);
    const lost = ({ got, want }: { got: Float64Array; want: Float64Array }) => want[0]! - got[0]!;
    const packed = lost(await compute(shape, a(undefined), b));
    expect(packed).toBeGreaterThan(1);
    expect(lost(await compute(shape, a(40), b))).toBeCloseTo((packed * 5) / 6, 3);
    expect(lost(await compute(shape, a(95), b))).toBeCloseTo((packed * 5) / 6, 3);
    // The value lies in another workgroup's rows.
    const { got } = await compute(shape, a(40), b);
    expect(got[8 * shape.n]! - got[0]!).toBeLessThan(0);
  });

  it.each([1, 1e-2, 1e-3])('small weights of about %d keep their digits', async (size) => {
    const next = gaussian(11);
    const result = await compute(
      { m: 17, n: 36, k: 256 },
      () => next(),
      () => next() * size,
    );
    expect(worst(result)).toBeLessThan(2 ** -10);
  });

  it('a large image value is summed in f32', async () => {
    const spec = conv2dSpec({ height: 3, width: 3, cin: 128, cout: 4, x: 'f16', weight: 'f16', normed: true });
    const result = await runSupported(gpu, conv2d(spec, target, small), [
      encode('f16', new Float64Array(9 * 128).fill(1000)),
      encode('f16', new Float64Array(4 * 9 * 128).fill(10)),
      new Float32Array(9 * 4),
    ]);
    expect(decode('f32', result.get(2)!)[4 * 4]).toBe(9 * 128 * 10_000);
  });

  it('refuses operands that no norm gave, and what has no f16 tile', () => {
    const half: MatmulShape = { m: 20, n: 24, k: 32, type: 'f16', format: 'f16' };
    const refused = /packed sums need f16 operands/;
    expect(() => matmul(matmulSpec(half), target, one)).toThrow(refused);
    expect(() => matmul(matmulSpec({ ...half, format: 'f32', normalised: true }), target, one)).toThrow(refused);
    expect(() => matmul(matmulSpec({ m: 20, n: 24, k: 32, normalised: true }), target, one)).toThrow(refused);
    const picture: Conv2dShape = { height: 4, width: 4, cin: 16, cout: 8, x: 'f16', weight: 'f16' };
    expect(() => conv2d(conv2dSpec(picture), target, small)).toThrow(refused);
  });
});
