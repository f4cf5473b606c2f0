// q8 and q4 with scales at the ends of f16's range, unpacked to f16 for matrix instructions, against the float64 oracle.
// Subnormal scales may not vanish, and large ones not overflow where the weights themselves are in range.
import { beforeAll, describe, it } from 'vitest';
import type { MatrixSchedule } from '../../kernels-codegen/src/kernels/matrix/schedule.ts';
import type { TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { floatToHalf } from '../../runtime/src/half.ts';
import { storedLayout } from '../../runtime/src/program/formats.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { bias, matmulSpec } from '../support/matmul-shapes.ts';
import { matrixTarget } from '../support/matrix-target.ts';
import { checkMatmul, matmulTolerance } from '../support/oracle-matmul.ts';
import { storedValues } from '../support/stored.ts';
import { gaussian } from '../support/views.ts';

/** Scales by block and a bound of the codes' size: weights beyond 65504 are no f16. */
const CASES: Record<string, { scale(i: number): number; codes: { q8: number; q4: number } }> = {
  'the smallest subnormals': { scale: (i) => 2 ** -24 * (1 + (i % 3)), codes: { q8: 127, q4: 7 } },
  subnormals: { scale: (i) => 2 ** (-17 + (i % 4)) * 0.8, codes: { q8: 127, q4: 7 } },
  'where the scale is no longer multiplied': { scale: (i) => 1021 + (i % 5), codes: { q8: 60, q4: 7 } },
  large: { scale: (i) => 1100 + 7 * (i % 100), codes: { q8: 32, q4: 7 } },
  'large and negative': { scale: (i) => (i % 2 ? -8000 : 8000), codes: { q8: 8, q4: 7 } },
  'all at once': {
    scale: (i) => [2 ** -20, 1e-3, -700, 4000, 65504][i % 5]!,
    codes: { q8: 1, q4: 1 },
  },
};

function weight(format: 'q8' | 'q4', rows: number, cols: number, name: string) {
  const { scale, codes } = CASES[name]!;
  const { sections, bytes: size } = storedLayout(format, rows, cols);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  const next = gaussian(rows + cols);
  const code = (): number => Math.round(Math.max(-1, Math.min(1, next() / 2)) * codes[format]);
  for (let i = 0; i < sections[1]!; i++) {
    if (format === 'q8') view.setInt8(i, code());
    else bytes[i] = (code() + 8) | ((code() + 8) << 4);
  }
  for (let i = 0; i < (rows * cols) / 32; i++) view.setUint16(sections[1]! + 2 * i, floatToHalf(scale(i)), true);
  return { bytes, values: storedValues(format, rows, cols, bytes) };
}

describe('block scales at the ends of f16', () => {
  let gpu: TestDevice;
  let target: TargetProfile | undefined;

  beforeAll(async () => {
    gpu = await openTestDevice();
    target = matrixTarget(gpu);
  });

  const cases = Object.keys(CASES).flatMap((name) => (['q8', 'q4'] as const).map((format) => ({ name, format })));
  it.each(cases)('$format: $name', async ({ name, format }) => {
    if (!target) return;
    // Whole blocks a thread with one buffer and with two; then single values, of a matrix that is no whole number of 16 bytes.
    for (const [n, k, buffers] of [
      [40, 96, undefined],
      [40, 64, 2],
      [33, 32, undefined],
    ] as const) {
      const spec = matmulSpec({ m: 20, n, k, type: 'f16', format, epilogue: bias });
      const schedule: MatrixSchedule = {
        ...{ variant: 'matrix', subgroupsM: 2, subgroupsN: 2, tilesM: 1, tilesN: 2, tileK: 32, storeTiles: 1 },
        ...(buffers && { buffers }),
      };
      await checkMatmul(gpu, spec, target, matmulTolerance(spec, 1), schedule, weight(format, n, k, name));
    }
  });
});
