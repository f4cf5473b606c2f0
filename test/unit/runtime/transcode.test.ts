// Weight formats made on the GPU, held to a plain TypeScript oracle and to ggml's own quantiser.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KontextError } from '../../../runtime/src/errors.ts';
import { readBuffer } from '../../../runtime/src/execute/ports.ts';
import { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import { openDevice } from '../../../runtime/src/gpu/open.ts';
import { floatToHalf, halfToFloat } from '../../../runtime/src/half.ts';
import { storedLayout } from '../../../runtime/src/program/formats.ts';
import type { WeightFormat, WeightRequest } from '../../../runtime/src/program/types.ts';
import { WeightStore } from '../../../runtime/src/weights/store.ts';
import { absmaxQ4, relativeError, searchedQ4, steppedQ8 } from '../../support/quantisers.ts';
import { random } from '../../support/random.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';
import { storedValues } from '../../support/stored.ts';
import { f32Tensor, type MemoryTensor, memorySource } from '../../support/weights.ts';

let gpu: KontextDevice;
beforeAll(async () => {
  gpu = await openDevice();
});
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

type Dtype = 'F32' | 'F16' | 'BF16';

/** Values of many magnitudes, exact in all three types, so that the source type does not blur the comparison. */
function exactValue(i: number): number {
  const mantissa = 1 + ((i * 37) % 128) / 128;
  return (i % 3 === 0 ? -1 : 1) * mantissa * 2 ** ((i % 11) - 6);
}

function tensorOf(dtype: Dtype, shape: number[], value: (i: number) => number): MemoryTensor {
  const { data } = f32Tensor(shape, value);
  const values = data as Float32Array;
  if (dtype === 'F32') return { dtype, shape, data };
  if (dtype === 'F16') return { dtype, shape, data: Uint16Array.from(values, floatToHalf) };
  const bits = new Uint32Array(values.buffer);
  return { dtype, shape, data: Uint16Array.from(bits, (b) => b >>> 16) };
}

function requestFor(format: WeightFormat, shape: [number, number], more: Partial<WeightRequest> = {}): WeightRequest {
  return { name: 'w', format, shape, layout: 'matrix', bytes: storedLayout(format, ...shape).bytes, ...more };
}

async function load(tensor: MemoryTensor, request: WeightRequest): Promise<Uint8Array<ArrayBuffer>> {
  const store = new WeightStore(gpu, await memorySource({ w: tensor }));
  const buffer = await store.get(request);
  const port = { name: 'w', direction: 'out', type: 'f32', shape: [request.bytes / 4], bytes: request.bytes } as const;
  const bytes = await readBuffer(gpu, buffer, { ...port, shape: [...port.shape] }, 'bytes');
  store.release(request, { free: true });
  await store.evict();
  return bytes;
}

/** The values that stored bytes stand for, as if in one row. */
const decode = (bytes: Uint8Array, format: WeightFormat, elements: number): number[] => [
  ...storedValues(format, 1, elements, bytes),
];

/** The reference quantisation of consecutive blocks of 32, with f32 arithmetic and f16 scales. */
function quantised(values: number[], format: WeightFormat): number[] {
  if (format === 'f32') return values;
  if (format === 'f16') return values.map((v) => halfToFloat(floatToHalf(v)));
  const quantise = format === 'q4' ? searchedQ4 : steppedQ8;
  const blocks = Array.from({ length: values.length / 32 }, (_, i) => values.slice(32 * i, 32 * i + 32));
  return blocks.flatMap((block) => [...quantise(Float64Array.from(block))]);
}

/** Equal but for a rare value on the edge between two codes, where the GPU's division may round the other way. */
function expectEqual(actual: number[], wanted: number[], format: WeightFormat): void {
  expect(actual.length).toBe(wanted.length);
  const different = wanted.flatMap((value, i) => (Math.abs(actual[i]! - value) > 1e-6 * Math.abs(value) ? [i] : []));
  if (format === 'f32' || format === 'f16') expect(different).toEqual([]);
  expect(different.length).toBeLessThanOrEqual(wanted.length / 200);
}

describe('matrix', () => {
  for (const dtype of ['F32', 'F16', 'BF16'] as const) {
    for (const format of ['f32', 'f16', 'q8', 'q4'] as const) {
      it(`${dtype} → ${format}, with rows and columns picked`, async () => {
        const tensor = tensorOf(dtype, [9, 160], exactValue);
        const all = Array.from({ length: 9 * 160 }, (_, i) => exactValue(i));
        const whole = await load(tensor, requestFor(format, [9, 160]));
        expectEqual(decode(whole, format, 9 * 160), quantised(all, format), format);

        const rows: [number, number] = [2, 7];
        const cols: [number, number] = [32, 96];
        const part = await load(tensor, requestFor(format, [5, 64], { rows, cols }));
        const picked = [2, 3, 4, 5, 6].flatMap((row) => all.slice(row * 160 + 32, row * 160 + 96));
        expectEqual(decode(part, format, 5 * 64), quantised(picked, format), format);
      });
    }
  }

  it('handles odd counts, one column, scalars and 4-d tensors read as a matrix', async () => {
    for (const shape of [[7], [1], [3, 5], [13, 1, 1, 1], [5, 3, 1, 1], []]) {
      const n = shape.reduce((p, v) => p * v, 1);
      const bytes = await load(
        tensorOf('BF16', shape, exactValue),
        requestFor('f16', shape.length < 2 ? [1, n] : [shape[0]!, n / shape[0]!]),
      );
      expect(decode(bytes, 'f16', n)).toEqual(Array.from({ length: n }, (_, i) => exactValue(i)));
    }
  });

  it('clamps what f16 cannot hold', async () => {
    const values = [65504, 65519, 70000, -1e9, 1e-3, 3e38];
    const bytes = await load(
      tensorOf('F32', [6], (i) => values[i]!),
      requestFor('f16', [1, 6]),
    );
    const stored = decode(bytes, 'f16', 6);
    expect(stored.slice(0, 4)).toEqual([65504, 65504, 65504, -65504]);
    expect(stored[4]).toBeCloseTo(1e-3, 6);
    expect(stored[5]).toBe(65504);
  });

  it('loads a tensor of several chunks with every byte in place', async () => {
    // 36 MiB in rows of 12 KiB: three chunks, the last one shorter.
    const [rows, cols] = [3072, 3072];
    const tensor = tensorOf('F32', [rows, cols], (i) => (i * 2654435761) % 65521);
    const bytes = await load(tensor, requestFor('f32', [rows, cols]));
    expect(Buffer.compare(bytes, new Uint8Array(tensor.data.buffer))).toBe(0);
  });
});

describe('ohwi', () => {
  for (const [dtype, format] of [
    ['F32', 'f32'],
    ['BF16', 'f16'],
    ['F16', 'q8'],
  ] as const) {
    it(`${dtype} → ${format}, input channels padded`, async () => {
      const [out, input, kh, kw, padIn] = [6, 3, 3, 3, 32];
      const tensor = tensorOf(dtype, [out, input, kh, kw], exactValue);
      const wanted: number[] = [];
      for (let o = 0; o < out; o++) {
        for (let tap = 0; tap < kh * kw; tap++) {
          for (let i = 0; i < padIn; i++) wanted.push(i < input ? exactValue((o * input + i) * kh * kw + tap) : 0);
        }
      }
      const shape: [number, number] = [out, kh * kw * padIn];
      const bytes = await load(tensor, requestFor(format, shape, { layout: 'ohwi', padIn }));
      expectEqual(decode(bytes, format, wanted.length), quantised(wanted, format), format);
    });
  }
});

describe("ggml's quantiser", () => {
  const io = readSafetensors(new URL('../../fixtures/quantization/io.safetensors', import.meta.url));
  const weights = floatTensor(io, 'gguf.in.weights');
  const stored = async (format: WeightFormat) =>
    decode(
      await load(
        f32Tensor([4, 512], (i) => weights[i]!),
        requestFor(format, [4, 512]),
      ),
      format,
      2048,
    );

  it('q8 stands for the same values as Q8_0', async () => {
    expectEqual(await stored('q8'), [...floatTensor(io, 'gguf.Q8_0.dequantized')], 'q8');
  });

  it('q8 keeps weights that were written from codes of four bits, whatever their step', async () => {
    const uniform = random(5);
    // Every largest code from 1 to 8, negative ones too, and steps that no f16 holds.
    const values = Array.from({ length: 64 }, (_, block) => {
      const most = 1 + (block % 8);
      const step = 0.01 * (1 + uniform());
      const codes = Array.from({ length: 32 }, (_, k) => (k === 7 ? -most : Math.round((uniform() * 2 - 1) * most)));
      return codes.map((code) => Math.fround(code * step));
    }).flat();
    const bytes = await load(
      f32Tensor([64, 32], (i) => values[i]!),
      requestFor('q8', [64, 32]),
    );
    const kept = decode(bytes, 'q8', 2048);
    // What is left is the scale's rounding to f16.
    const off = values.map((value, i) => Math.abs(kept[i]! - value) - 2 ** -11 * Math.abs(value));
    expect(Math.max(...off)).toBeLessThanOrEqual(0);
    expectEqual(kept, quantised(values, 'q8'), 'q8');
  });

  it('q4 leaves less error than Q4_0, by block and in all', async () => {
    const [ours, theirs] = [await stored('q4'), floatTensor(io, 'gguf.Q4_0.dequantized')];
    const left = (values: ArrayLike<number>, block: number) =>
      Array.from({ length: 32 }, (_, k) => (values[32 * block + k]! - weights[32 * block + k]!) ** 2).reduce(
        (a, b) => a + b,
      );
    const blocks = Array.from({ length: 64 }, (_, block) => [left(ours, block), left(theirs, block)] as const);
    for (const [mine, its] of blocks) expect(mine).toBeLessThanOrEqual(its * 1.001);
    const sum = (which: 0 | 1) => blocks.reduce((total, pair) => total + pair[which], 0);
    expect(sum(0) / sum(1)).toBeLessThan(0.975);
    // The oracle's absmax is ggml's own.
    expectEqual(
      Array.from({ length: 64 }, (_, block) => [
        ...absmaxQ4(Float64Array.from(weights.subarray(32 * block, 32 * block + 32))),
      ]).flat(),
      [...theirs],
      'q4',
    );
  });
});

describe('q4', () => {
  let state = 7;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());

  it('leaves the error of the search in float64, a fifth of a hundredth at most above', async () => {
    const values = Float32Array.from({ length: 64 * 512 }, () => normal() * 0.02);
    const bytes = await load(
      f32Tensor([64, 512], (i) => values[i]!),
      requestFor('q4', [64, 512]),
    );
    const exact = Float64Array.from(values);
    const gpuValues = decode(bytes, 'q4', exact.length);
    let [left, all] = [0, 0];
    for (const [i, value] of exact.entries()) {
      left += (gpuValues[i]! - value) ** 2;
      all += value ** 2;
    }
    const [gpuError, wanted] = [Math.sqrt(left / all), relativeError(exact, 32, searchedQ4)];
    expect(Math.abs(gpuError / wanted - 1)).toBeLessThan(0.002);
    expect(gpuError / relativeError(exact, 32, absmaxQ4)).toBeLessThan(0.95);
  });

  it('keeps what is on a grid of 4-bit codes, zeros, and the largest and smallest values', async () => {
    const grids = (i: number) => {
      const block = i >> 5;
      const code = i % 32 === 0 ? -8 : Math.floor(uniform() * 16) - 8;
      return block % 5 === 4 ? 0 : (block % 2 ? -1 : 1) * code * 2 ** ((block % 17) - 13);
    };
    const values = Float32Array.from({ length: 4 * 512 }, (_, i) => grids(i));
    const bytes = await load(
      f32Tensor([4, 512], (i) => values[i]!),
      requestFor('q4', [4, 512]),
    );
    expect(decode(bytes, 'q4', 2048).map((v) => v + 0)).toEqual([...values].map((v) => v + 0));

    const edges = [3e38, -65504 * 8, 1e-7, 1e-38];
    const odd = await load(
      f32Tensor([4, 32], (i) => (i % 32 === 0 ? edges[i >> 5]! : 0)),
      requestFor('q4', [4, 32]),
    );
    const stored = decode(odd, 'q4', 128);
    expect(stored.every(Number.isFinite)).toBe(true);
    expect(stored[32]).toBe(-65504 * 8);
    expect(stored[96]).toBeCloseTo(0, 20);
  });
});

describe('store', () => {
  it('shares a weight, counts uses, keeps idle ones until evict', async () => {
    const before = gpu.memory.bytes;
    const store = new WeightStore(gpu, await memorySource({ w: f32Tensor([64, 64], (i) => i) }));
    const request = requestFor('f16', [64, 64]);
    const [a, b] = await Promise.all([store.get(request), store.get({ ...request })]);
    expect(a).toBe(b);
    expect(store.memory).toEqual({ bytes: 8192, idleBytes: 0, weights: 1 });
    store.release(request);
    await store.evict();
    expect(store.memory.weights).toBe(1);
    store.release(request);
    expect(store.memory.idleBytes).toBe(8192);
    await store.evict();
    expect(store.memory.weights).toBe(0);
    expect(gpu.memory.bytes).toBe(before);
  });

  it('refuses what the file does not have, naming tensor and file', async () => {
    const source = await memorySource({
      w: f32Tensor([8, 32], () => 0),
      ids: { dtype: 'I64', shape: [4], data: new BigInt64Array(4) },
    });
    const store = new WeightStore(gpu, source);
    const refusal = (request: WeightRequest) =>
      store.get(request).then(
        () => undefined,
        (e: KontextError) => e,
      );
    for (const [request, text] of [
      [requestFor('f32', [1, 1], { name: 'missing' }), /test\.safetensors has no tensor "missing"/],
      [requestFor('f32', [8, 31]), /"w" \(F32 \[8, 32\]\).*shape \[8, 31\]/],
      [requestFor('f32', [32, 8]), /shape \[32, 8\]/],
      [requestFor('f32', [2, 32], { rows: [7, 9] }), /rows 7 to 9/],
      [requestFor('f32', [1, 4], { name: 'ids' }), /"ids" \(I64/],
      [requestFor('q8', [16, 16]), /multiple of 32/],
      [requestFor('f32', [8, 32], { layout: 'ohwi' }), /convolution/],
    ] as const) {
      const error = await refusal(request);
      expect(error?.code).toBe('weights-invalid');
      expect(error?.message).toMatch(text);
    }
    expect(store.memory.weights).toBe(0);
    await store.evict();
  });

  it('stops loading when cancelled, and loads for another caller of the same weight', async () => {
    const store = new WeightStore(gpu, await memorySource({ w: f32Tensor([512, 512], (i) => i) }));
    const request = requestFor('f32', [512, 512]);
    const controller = new AbortController();
    const cancelled = store.get(request, controller.signal).catch((e: KontextError) => e.code);
    const other = store.get(request);
    controller.abort();
    expect(await cancelled).toBe('aborted');
    expect((await other).size).toBe(512 * 512 * 4);
    store.release(request, { free: true });
    expect(store.memory.weights).toBe(0);
    await store.evict();
  });

  it('reads embedding rows on the CPU, remembers them, refuses ids outside', async () => {
    const source = await memorySource({ w: tensorOf('BF16', [10, 4], exactValue) });
    let reads = 0;
    const counted = {
      ...source,
      read(...args: Parameters<typeof source.read>) {
        reads++;
        return source.read(...args);
      },
    };
    const store = new WeightStore(gpu, counted);
    const rows = await store.rows('w', [3, 9, 3]);
    const row = (i: number) => [0, 1, 2, 3].map((k) => exactValue(i * 4 + k));
    expect([...rows]).toEqual([...row(3), ...row(9), ...row(3)]);
    await store.rows('w', [9]);
    expect(reads).toBe(2);
    await expect(store.rows('w', [10])).rejects.toMatchObject({ code: 'invalid-request' });
  });

  it('holds no more than two chunks of host memory at once', async () => {
    const source = await memorySource({ w: f32Tensor([4096, 2048], (i) => i % 7) });
    let held = 0;
    let peak = 0;
    // What was read is held until the GPU has consumed it, which the next read of the gate proves.
    const counted = {
      ...source,
      async read(...args: Parameters<typeof source.read>) {
        held += args[2] - args[1];
        peak = Math.max(peak, held);
        return source.read(...args);
      },
    };
    const store = new WeightStore(gpu, counted);
    const idle = KontextDevice.prototype.idle;
    const request = requestFor('f32', [4096, 2048]);
    gpu.idle = async function (this: KontextDevice) {
      await idle.call(this);
      held = Math.max(0, held - 16 * 2 ** 20);
    };
    await store.get(request);
    gpu.idle = idle;
    expect(peak).toBeGreaterThan(16 * 2 ** 20);
    expect(peak).toBeLessThanOrEqual(32 * 2 ** 20);
    store.release(request, { free: true });
    await store.evict();
  });
});
