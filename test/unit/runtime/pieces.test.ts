// The runtime's parts that need no GPU: half floats, gate, pace, windows, chunk plans, traces.

import { describe, expect, it } from 'vitest';
import { Pace, SLICE_MS } from '../../../runtime/src/execute/pace.ts';
import { Trace } from '../../../runtime/src/execute/trace.ts';
import { planWindows } from '../../../runtime/src/execute/windows.ts';
import { floatToHalf, halfToFloat } from '../../../runtime/src/half.ts';
import { storedLayout } from '../../../runtime/src/program/formats.ts';
import type { WeightRequest } from '../../../runtime/src/program/types.ts';
import { Gate } from '../../../runtime/src/weights/gate.ts';
import { planChunks } from '../../../runtime/src/weights/plan.ts';
import { BF16 } from '../../../runtime/src/weights/types/floats.ts';
import { Q4_K, Q6_K } from '../../../runtime/src/weights/types/ggml.ts';
import { sumOfWeights } from '../../support/tiny-program.ts';

describe('half floats', () => {
  it('all 65536 codes survive the way to float32 and back', () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = halfToFloat(bits);
      if (Number.isNaN(value)) expect(Number.isNaN(halfToFloat(floatToHalf(value)))).toBe(true);
      else if (floatToHalf(value) !== bits) throw new Error(`${bits} became ${floatToHalf(value)}`);
    }
  });

  it('rounds to nearest, ties to even, over the whole range', () => {
    for (let bits = 0; bits < 0x7bff; bits += 7) {
      const [low, high] = [halfToFloat(bits), halfToFloat(bits + 1)];
      const middle = (low + high) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const codes = [
        floatToHalf(middle),
        floatToHalf(low + (high - low) * 0.499),
        floatToHalf(low + (high - low) * 0.501),
      ];
      if (codes.join() !== [even, bits, bits + 1].join()) throw new Error(`near ${low}: ${codes}`);
    }
    expect([65519, 65520, -1e9, 2 ** -25, 2 ** -26].map(floatToHalf)).toEqual([0x7bff, 0x7c00, 0xfc00, 0, 0]);
  });
});

describe('gate', () => {
  it('keeps the sum inside under the budget, in order, and lets a giant in alone', async () => {
    const gate = new Gate(10);
    const log: string[] = [];
    let inside = 0;
    const job = async (name: string, bytes: number) => {
      const leave = await gate.enter(bytes);
      inside += bytes;
      log.push(name);
      expect(inside).toBeLessThanOrEqual(Math.max(10, bytes));
      await new Promise((resolve) => setTimeout(resolve, 1));
      inside -= bytes;
      leave();
      leave();
    };
    await Promise.all([job('a', 6), job('b', 5), job('c', 4), job('giant', 50), job('d', 1)]);
    expect(log).toEqual(['a', 'b', 'c', 'giant', 'd']);
    expect(gate.idle).toBe(true);
  });
});

describe('pace', () => {
  const work = { flops: 1e9, bytes: 0 };

  it('converges on the true speed from far above and far below', () => {
    for (const trueMs of [0.02, 5, 900]) {
      const pace = new Pace();
      for (let i = 0; i < 30; i++) {
        // A slice of as many dispatches as fit, at least one.
        const count = Math.max(1, Math.floor(SLICE_MS / pace.predict(work)));
        pace.learn(count * pace.predict(work), count * trueMs);
      }
      expect(pace.predict(work) / trueMs).toBeGreaterThan(0.7);
      expect(pace.predict(work) / trueMs).toBeLessThan(1.5);
    }
  });

  it('learns nothing from the latency of tiny slices', () => {
    const pace = new Pace();
    const before = pace.predict(work);
    pace.learn(0.01, 3);
    expect(pace.predict(work)).toBe(before);
  });
});

describe('windows', () => {
  it('covers every dispatch in order, loads before use, frees after last use, keeps the budget', () => {
    const program = sumOfWeights(64, 9);
    // Weight 1 is used again at the end.
    program.dispatches.push({ ...program.dispatches[1]!, label: 'again' });
    const windows = planWindows(program, 3 * 256);
    expect(windows.map(({ first, end }) => [first, end])).toEqual([
      [0, 3],
      [3, 6],
      [6, 10],
    ]);
    expect(windows.map(({ load }) => load)).toEqual([
      [0, 1, 2],
      [3, 4, 5],
      [6, 7, 8],
    ]);
    expect(windows[0]!.free).toEqual([0, 2]);
    expect(windows[2]!.free.sort()).toEqual([1, 6, 7, 8]);
    // A budget below one weight still makes progress, a dispatch at a time.
    expect(planWindows(program, 1)).toHaveLength(9);
  });
});

describe('chunk plans', () => {
  const request = (more: Partial<WeightRequest>): WeightRequest => ({
    name: 'w',
    format: 'f16',
    shape: [100, 48],
    layout: 'matrix',
    bytes: 9600,
    ...more,
  });
  const tensor = { dtype: 'BF16', type: BF16, shape: [100, 48], bytes: 9600 };

  it('cuts rows so that chunks share no word and cover everything once', () => {
    for (const format of ['f32', 'f16', 'q8', 'q4'] as const) {
      for (const chunkBytes of [1, 500, 1000, 1e6]) {
        const shape: [number, number] = format === 'f32' || format === 'f16' ? [100, 48] : [50, 96];
        const { bytes, sections } = storedLayout(format, ...shape);
        const chunks = planChunks(request({ format, shape, bytes }), { ...tensor, shape }, 'f', chunkBytes);
        expect(chunks[0]!.start).toBe(0);
        expect(chunks.at(-1)!.end).toBe(9600);
        let elements = 0;
        for (const [i, { start, params }] of chunks.entries()) {
          expect(start).toBe(i === 0 ? 0 : chunks[i - 1]!.end);
          expect(params.start).toBe(elements);
          expect(elements % 256).toBe(0);
          expect(params.sections).toEqual(sections);
          elements += params.count;
        }
        expect(elements).toBe(4800);
      }
    }
  });

  it('reads whole blocks, also where rows of a vector begin inside one', () => {
    const vector = { dtype: 'Q4_K', type: Q4_K, shape: [768], bytes: 3 * 144 };
    const rows: [number, number] = [300, 600];
    const [chunk, ...rest] = planChunks(
      request({ format: 'f32', shape: [1, 300], bytes: 1200, rows }),
      vector,
      'f',
      1e6,
    );
    expect(rest).toEqual([]);
    expect([chunk!.start, chunk!.end, chunk!.params.first]).toEqual([144, 432, 44]);
  });

  it('goes from part to part of a joined tensor', () => {
    const parts = [
      { dtype: 'Q4_K', type: Q4_K, shape: [2, 256], bytes: 288 },
      { dtype: 'Q6_K', type: Q6_K, shape: [3, 256], bytes: 630 },
    ];
    const joined = { dtype: 'Q4_K, Q6_K', shape: [5, 256], bytes: 918, parts };
    const rows: [number, number] = [1, 4];
    const chunks = planChunks(request({ format: 'f16', shape: [3, 256], bytes: 1536, rows }), joined, 'f', 1e6);
    expect(chunks.map(({ type, start, end, params }) => [type.name, start, end, params.start])).toEqual([
      ['Q4_K', 144, 288, 0],
      ['Q6_K', 288, 708, 256],
    ]);
    const lossless = request({ format: 'q4k', shape: [5, 256], bytes: 740 });
    expect(() => planChunks(lossless, joined, 'f', 1e6)).toThrow(
      /"w" \(Q4_K, Q6_K \[5, 256\]\) cannot be stored as q4k/,
    );
  });
});

describe('trace', () => {
  const trace = new Trace('denoise', [
    { label: 'double_blocks.0.qkv', kernel: 'matmul', startNs: 5e15, durationNs: 2e6, flops: 4e9, bytes: 2e6 },
    { label: 'double_blocks.1.qkv', kernel: 'matmul', startNs: 5e15 + 3e6, durationNs: 2e6, flops: 4e9, bytes: 2e6 },
    { label: 'final', kernel: 'norm', startNs: 5e15 + 6e6, durationNs: 1e6, flops: 0, bytes: 1e8 },
  ]);

  it('sums layers, slowest first, in GFLOP/s and GB/s', () => {
    expect(trace.rows()).toEqual([
      { label: 'double_blocks.N.qkv', count: 2, milliseconds: 4, share: 0.8, gflops: 2000, gbytes: 1 },
      { label: 'final', count: 1, milliseconds: 1, share: 0.2, gflops: 0, gbytes: 100 },
    ]);
    expect(trace.rows('kernel').map(({ label }) => label)).toEqual(['matmul', 'norm']);
    expect(trace.table().split('\n')[2]).toMatch(/4\.000 +80\.0 +2000\.0 +1\.0 +2 +double_blocks\.N\.qkv/);
  });

  it('exports complete events in microseconds', () => {
    const { traceEvents } = JSON.parse(trace.chromeTrace()) as { traceEvents: Record<string, unknown>[] };
    expect(traceEvents[1]).toMatchObject({ ph: 'X', name: 'double_blocks.1.qkv', ts: 3000, dur: 2000, pid: 'denoise' });
    expect(traceEvents[2]).toMatchObject({ args: { gbytes: 100 } });
  });
});
