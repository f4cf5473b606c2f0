// Row gathers are copies, so they must be exact: every storage type, tier and alignment.
// The baseline tier unpacks f16 tables from words; odd row starts exercise both halves of a word.
import { beforeAll, describe, expect, it } from 'vitest';
import { gather } from '../../kernels-codegen/src/kernels/gather.ts';
import type { MatrixView } from '../../kernels-codegen/src/kernels/kernel.ts';
import { BASELINE_LIMITS, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { runSupported } from '../support/run-supported.ts';
import { decode, encode, expectView, filled, gaussian, roundTo, valueAt, view } from '../support/views.ts';

describe('gather', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  const cases: { name: string; tier: Tier; table: MatrixView; out: MatrixView }[] = [
    { name: 'f32', tier: 'f32', table: view('f32', 50, 64), out: view('f32', 9, 64) },
    { name: 'f16 table unpacked from words', tier: 'f32', table: view('f16', 50, 64), out: view('f32', 9, 64) },
    { name: 'odd f16 rows unpacked from words', tier: 'f32', table: view('f16', 13, 7), out: view('f32', 9, 7) },
    { name: 'f16 to f16', tier: 'f16', table: view('f16', 50, 64), out: view('f16', 9, 64) },
    { name: 'f16 to f32', tier: 'f16', table: view('f16', 50, 64), out: view('f32', 9, 64) },
    { name: 'f32 to f16', tier: 'f16', table: view('f32', 50, 64), out: view('f16', 9, 64) },
    { name: 'one odd row', tier: 'f16', table: view('f16', 3, 5), out: view('f32', 1, 5) },
    {
      name: 'rectangles',
      tier: 'f16',
      table: view('f32', 20, 16, { rowStride: 48, offset: 16 }),
      out: view('f16', 600, 16, { rowStride: 20, offset: 4 }),
    },
  ];
  for (const c of cases) {
    it(`${c.tier}: ${c.name}`, async () => {
      const next = gaussian(3);
      const table = filled(c.table, next);
      const before = filled(c.out, next);
      const indices = Uint32Array.from({ length: c.out.rows }, (_, i) => (i * 7 + 2) % c.table.rows);
      indices[0] = c.table.rows - 1;
      const kernel = gather(
        { table: c.table, indices: indices.length, out: c.out },
        { name: 'test', tier: c.tier, limits: BASELINE_LIMITS },
      );
      const result = await runSupported(gpu, kernel, [
        encode(c.table.type, table),
        indices,
        encode(c.out.type, before),
      ]);
      const want = (r: number, col: number): number => roundTo(c.out.type, valueAt(c.table, table, indices[r]!, col));
      // WGSL lets f32 → f16 round either way (one ulp, 2^-10 of the value); everything else is a plain copy.
      const limit =
        c.table.type === 'f32' && c.out.type === 'f16' ? { nmse: 1e-6, worst: 5e-3 } : { nmse: 0, worst: 0 };
      expectView(c.out, decode(c.out.type, result.get(2)!), want, limit, before);
      expect(kernel.bindings).toEqual(['read', 'read', 'read_write']);
    });
  }
});
