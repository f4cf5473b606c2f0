// The runtime's parts that need no GPU: half floats, gate, pace, windows, chunk plans, traces.

import { describe, expect, it } from 'vitest';
import { Pace, SLICE_MS } from '../../../runtime/src/execute/pace.ts';
import { Trace } from '../../../runtime/src/execute/trace.ts';
import { planWindows } from '../../../runtime/src/execute/windows.ts';
import { floatToHalf, halfToFloat } from '../../../runtime/src/half.ts';
import type { WeightRequest } from '../../../runtime/src/program/types.ts';
import { Gate } from '../../../runtime/src/weights/gate.ts';
import { planChunks } from '../../../runtime/src/weights/plan.ts';
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
  const tensor = { dtype: 'BF16', shape: [100, 48], bytes: 9600 } as const;

  it('cuts rows so that chunks share no word and cover everything once', () => {
    for (const format of ['f32', 'f16', 'q8', 'q4'] as const) {
      for (const chunkBytes of [1, 500, 1000, 1e6]) {
        const bytes = { f32: 19200, f16: 9600, q8: 5100, q4: 2700 }[format];
        const shape: [number, number] = format === 'f32' || format === 'f16' ? [100, 48] : [50, 96];
        const { chunks } = planChunks(
          request({ format, shape, bytes }),
          { ...tensor, shape: [...tensor.shape] },
          'f',
          chunkBytes,
        );
        expect(chunks[0]!.start).toBe(0);
        expect(chunks.at(-1)!.end).toBe(9600);
        let elements = 0;
        for (const [i, chunk] of chunks.entries()) {
          expect(chunk.start).toBe(i === 0 ? 0 : chunks[i - 1]!.end);
          expect(elements % 64).toBe(0);
          for (const { offset, size } of chunk.outputs) {
            expect(offset % 256).toBe(0);
            expect(size % 4).toBe(0);
            expect(offset + size).toBeLessThanOrEqual(Math.ceil(bytes / 16) * 16);
          }
          const word = chunk.outputs[0]!.offset + chunk.outputs[0]!.dstWord * 4;
          expect(word).toBe({ f32: elements * 4, f16: elements * 2, q8: elements, q4: elements / 2 }[format]);
          elements += chunk.params.count;
        }
        expect(elements).toBe(4800);
      }
    }
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
