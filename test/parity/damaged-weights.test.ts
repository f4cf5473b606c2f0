// Damage without a lock: NaN, infinities and matrices of zeros are found while weights are made, in every type and format, and named.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type KontextDevice, openDevice } from '../../runtime/src/index.ts';
import { storedLayout } from '../../runtime/src/program/formats.ts';
import type { WeightFormat, WeightRequest } from '../../runtime/src/program/types.ts';
import type { SourceTensor, WeightSource } from '../../runtime/src/weights/source.ts';
import { WeightStore } from '../../runtime/src/weights/store.ts';
import { SOURCE_TYPES } from '../../runtime/src/weights/types/index.ts';

let gpu: KontextDevice;
beforeAll(async () => {
  gpu = await openDevice();
});
afterAll(() => gpu.destroy());

const [ROWS, COLS] = [64, 256];

function source(dtype: string, data: Uint8Array<ArrayBuffer>): WeightSource {
  const tensor: SourceTensor = { dtype, type: SOURCE_TYPES[dtype]!, shape: [ROWS, COLS], bytes: data.length };
  return {
    label: 'model.safetensors',
    tensors: new Map([['w', tensor]]),
    read: async (_, start, end) => data.slice(start, end),
    close: async () => {},
  };
}
const request = (format: WeightFormat): WeightRequest => {
  const bytes = Math.ceil(storedLayout(format, ROWS, COLS).bytes / 16) * 16;
  return { name: 'w', format, shape: [ROWS, COLS], layout: 'matrix', bytes };
};
const load = async (dtype: string, data: Uint8Array<ArrayBuffer>, format: WeightFormat) => {
  const store = new WeightStore(gpu, source(dtype, data));
  try {
    await store.get(request(format));
    store.release(request(format));
  } finally {
    await store.evict();
  }
};

/** Bytes of small normal numbers. */
function sound(dtype: string): Uint8Array<ArrayBuffer> {
  const { bytes, elements } = SOURCE_TYPES[dtype]!;
  const data = new Uint8Array((ROWS * COLS * bytes) / elements);
  const width = dtype === 'F32' ? 4 : 2;
  for (let i = 0; i < data.length; i += width) {
    data[i + width - 1] = dtype === 'F16' ? 0x34 : 0x3e;
    data[i + width - 2] = (i * 7) & 0x3f;
  }
  return data;
}

for (const dtype of ['F32', 'F16', 'BF16']) {
  for (const format of ['f32', 'f16', 'q8', 'q4'] as const) {
    describe(`${dtype} to ${format}`, () => {
      const width = dtype === 'F32' ? 4 : 2;
      it('takes a sound matrix, also with one value only', async () => {
        await load(dtype, sound(dtype), format);
        const sparse = new Uint8Array(sound(dtype).length);
        sparse[sparse.length - 1] = 0x3c;
        await load(dtype, sparse, format);
      });
      it.each([
        ['NaN', 0x7f, 0xff],
        ['-NaN', 0xff, 0xff],
        ['infinity', dtype === 'F16' ? 0x7c : 0x7f, dtype === 'F16' ? 0 : 0x80],
      ])('finds one %s', async (_, high, low) => {
        const data = sound(dtype);
        const at = (37 * COLS + 101) * width;
        data.fill(0, at, at + width);
        data[at + width - 1] = high;
        data[at + width - 2] = low;
        await expect(load(dtype, data, format)).rejects.toMatchObject({
          code: 'weights-invalid',
          message: expect.stringMatching(/model\.safetensors.*"w".*not finite/),
          details: { tensor: 'w', notFinite: true },
        });
      });
      it('finds a matrix of zeros', async () => {
        await expect(load(dtype, new Uint8Array(sound(dtype).length), format)).rejects.toMatchObject({
          code: 'weights-invalid',
          details: { tensor: 'w', zero: true },
        });
      });
    });
  }
}

describe.each(['F8_E4M3', 'F8_E5M2'] as const)('%s', (dtype) => {
  // What is held as it is, and what becomes something else.
  const formats = [dtype === 'F8_E4M3' ? 'e4m3' : 'e5m2', 'f32', 'f16', 'q8', 'q4'] as const;
  const codes = (code: number, largest: number) => {
    const data = Uint8Array.from({ length: ROWS * COLS }, (_, i) => ((i * 7) % (largest + 1)) | ((i & 1) << 7));
    data[37 * COLS + 101] = code;
    return data;
  };
  // The largest numbers are 448 and 57344.
  const largest = dtype === 'F8_E4M3' ? 0x7e : 0x7b;
  it.each(formats)('to %s: every number is taken, what is none is found', async (format) => {
    await load(dtype, codes(largest | 0x80, largest), format);
    for (let code = largest + 1; code < 128; code++) {
      for (const sign of [0, 0x80]) {
        await expect(load(dtype, codes(code | sign, largest), format), `code ${code | sign}`).rejects.toMatchObject({
          code: 'weights-invalid',
          message: expect.stringMatching(/model\.safetensors.*"w".*not finite/),
          details: { tensor: 'w', notFinite: true },
        });
      }
    }
  });
});

it('finds scales that are not finite in blocks that keep their codes', async () => {
  const data = new Uint8Array((ROWS * COLS * 18) / 32).map((_, i) => (i * 29) & 255);
  for (let block = 0; block < data.length; block += 18) data.set([0, 0x30], block);
  await load('Q4_0', data, 'q4');
  data.set([0, 0x7c], 18 * 77);
  await expect(load('Q4_0', data, 'q4')).rejects.toMatchObject({ details: { notFinite: true } });
});

it('finds them in rows that are read on the CPU', async () => {
  const data = sound('BF16');
  data.set([0xc0, 0x7f], 5 * COLS * 2);
  const store = new WeightStore(gpu, source('BF16', data));
  expect(await store.rows('w', [4])).toHaveLength(COLS);
  await expect(store.rows('w', [4, 5])).rejects.toMatchObject({ details: { tensor: 'w', notFinite: true } });
});
