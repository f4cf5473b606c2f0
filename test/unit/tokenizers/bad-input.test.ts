// What no prompt should contain and some will: every case is a typed error or a defined result, and the module works on.
// Texts of a megabyte must end in seconds, whatever they are made of.
import { describe, expect, it } from 'vitest';
import { KontextError } from '../../../runtime/src/errors.ts';
import { ClipTokenizer, T5Tokenizer } from '../../../sdk/src/host/tokenizers.ts';
import { loadTokenizers, prompts } from '../../support/tokenizers.ts';

const { host, clip, t5, clipTable, t5Table } = await loadTokenizers();
const items = prompts();
const sample = items[0]!;

function stillWorks(): void {
  expect([...clip.encodeAll(sample.text)]).toEqual(sample.clip);
  expect([...t5.encodeAll(sample.text)]).toEqual(sample.t5);
}

function errorOf(run: () => unknown): KontextError {
  try {
    run();
  } catch (error) {
    if (error instanceof KontextError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('texts', () => {
  it('refuses lone surrogates and says where', () => {
    for (const [text, index] of [
      ['\ud800', 0],
      ['ab\udc00c', 2],
      ['😀\ud83d', 2],
    ] as const) {
      for (const tokenizer of [clip, t5]) {
        const error = errorOf(() => tokenizer.encode(text));
        expect(error.code).toBe('invalid-request');
        expect(error.details).toEqual({ index });
        expect(error.message).toContain(`index ${index}`);
      }
    }
    stillWorks();
  });

  it('refuses invalid UTF-8 from other hosts and says where', () => {
    const cases: [number[], number][] = [
      [[0x61, 0x80], 1],
      [[0xc0, 0x80], 0], // overlong NUL
      [[0xc1, 0xbf], 0],
      [[0xe0, 0x9f, 0xbf], 0],
      [[0xed, 0xa0, 0x80], 0], // a surrogate
      [[0xf0, 0x8f, 0xbf, 0xbf], 0],
      [[0xf4, 0x90, 0x80, 0x80], 0], // above U+10FFFF
      [[0xf5, 0x80, 0x80, 0x80], 0],
      [[0x61, 0x62, 0xe2, 0x82], 2], // cut off
      [[...new TextEncoder().encode('0123456789é'), 0xff], 12],
    ];
    const handle = { clip: 0, t5: 0 };
    for (const [name, table] of [
      ['clip', clipTable],
      ['t5', t5Table],
    ] as const) {
      const address = host.keep(table);
      handle[name] = host.exports[`${name}Create`](address, table.length);
      host.release(address);
    }
    for (const [bytes, at] of cases) {
      for (const name of ['clip', 't5'] as const) {
        host.reset();
        const text = host.push(Uint8Array.from(bytes));
        expect(host.exports[`${name}Encode`](handle[name], text, bytes.length, 0, 0), bytes.join()).toBe(-2);
        expect(host.exports.errorDetail(), bytes.join()).toBe(at);
      }
    }
    host.release(handle.clip);
    host.release(handle.t5);
    stillWorks();
  });

  it('takes NULs and other controls as the reference does', () => {
    expect([...clip.encodeAll('nul\0inside')]).toEqual([49406, 1156, 331, 444, 2912, 49407]);
    expect([...t5.encodeAll('nul\0inside')]).toEqual([206, 40, 2, 77, 1583, 1]);
  });

  it('refuses lengths that cannot hold the marks', () => {
    for (const length of [-1, 0, 1.5, Number.NaN, 2 ** 25]) {
      expect(errorOf(() => clip.encode('a', { length })).code).toBe('invalid-request');
      expect(errorOf(() => t5.encode('a', { length })).code).toBe('invalid-request');
    }
    expect(errorOf(() => clip.encode('a', { length: 1 })).message).toContain('from 2');
    expect([...t5.encode('a', { length: 1 })]).toEqual([1]);
    expect(host.exports.clipEncode(0, 0, 0, 0, 0)).toBe(-5);
    stillWorks();
  });

  const megabyte = 1 << 20;
  const long: Record<string, string> = {
    'one letter': 'a'.repeat(megabyte),
    words: 'a red fox in the snow, '.repeat(megabyte / 23),
    spaces: ' '.repeat(megabyte),
    'marks on one letter': `e${'\u0301\u0327'.repeat(megabyte / 4)}`,
    Hangul: '한'.repeat(megabyte / 3),
    'starts of special tokens': '<'.repeat(megabyte),
    flags: '🇩🇪'.repeat(megabyte / 8),
    'joined emoji': '👩‍'.repeat(megabyte / 7),
    'the longest replacement': '\ufdfa'.repeat(megabyte / 3),
  };
  for (const [name, text] of Object.entries(long)) {
    it(`takes a megabyte: ${name}`, () => {
      for (const tokenizer of [clip, t5]) {
        const { ids, count, truncated } = tokenizer.encodeWithCount(text, { length: 77 });
        expect(ids).toHaveLength(77);
        expect(truncated).toBe(count > 77);
      }
      stillWorks();
    });
  }

  it('counts a megabyte right: the ids of a repeated word repeat', () => {
    const words = 100_000;
    expect(clip.count('fox '.repeat(words))).toBe(words + 2);
    expect(t5.count('the '.repeat(words))).toBe(words + 1);
  });
});

describe('tables', () => {
  const kinds = [
    { name: 'CLIP', table: clipTable, create: (table: Uint8Array) => ClipTokenizer.create(host, table) },
    { name: 'T5', table: t5Table, create: (table: Uint8Array) => T5Tokenizer.create(host, table) },
  ];
  for (const { name, table, create } of kinds) {
    it(`refuses a ${name} table that is cut off anywhere`, () => {
      for (const length of [0, 1, 4, 11, 12, 13, 100, 5000, table.length >> 1, table.length - 1]) {
        expect(errorOf(() => create(table.subarray(0, length))).code, `${length}`).toBe('tokenizer-invalid');
      }
      stillWorks();
    });

    it(`refuses a ${name} table with any byte changed`, () => {
      for (let i = 0; i < 60; i++) {
        const damaged = table.slice();
        const at = i < 20 ? i : Math.floor((table.length * i) / 60);
        damaged[at]! ^= 1 << (i % 8);
        expect(errorOf(() => create(damaged)).code, `byte ${at}`).toBe('tokenizer-invalid');
      }
      stillWorks();
    });

    it(`survives a ${name} table whose damage has the right checksum`, () => {
      for (let i = 0; i < 60; i++) {
        const damaged = table.slice();
        const at = 12 + (i < 30 ? i : Math.floor(((table.length - 12) * i) / 60));
        damaged[at]! ^= 0x80 >> (i % 8);
        new DataView(damaged.buffer).setUint32(8, checksum(damaged.subarray(12)), true);
        try {
          const tokenizer = create(damaged);
          for (const prompt of prompts().slice(0, 40)) tokenizer.encodeAll(prompt.text);
          tokenizer.dispose();
        } catch (error) {
          expect(error).toBeInstanceOf(KontextError);
        }
      }
      stillWorks();
    });
  }

  it('tells the two kinds apart', () => {
    expect(errorOf(() => ClipTokenizer.create(host, t5Table)).code).toBe('tokenizer-invalid');
    expect(errorOf(() => T5Tokenizer.create(host, clipTable)).code).toBe('tokenizer-invalid');
  });

  it('refuses calls after dispose', () => {
    const tokenizer = T5Tokenizer.create(host, t5Table);
    tokenizer.dispose();
    tokenizer.dispose();
    expect(errorOf(() => tokenizer.encode('a')).code).toBe('closed');
    stillWorks();
  });
});

describe('memory', () => {
  it('does not grow over 100,000 calls', () => {
    for (const { text } of prompts()) {
      clip.encode(text);
      t5.encode(text);
    }
    const before = host.bytes.length;
    for (let i = 0; i < 50_000; i++) {
      const { text } = items[i % items.length]!;
      clip.encode(text);
      t5.encode(text);
    }
    expect(host.bytes.length).toBe(before);
  });

  it('does not grow over 100,000 refused calls', () => {
    const refused = [
      () => clip.encode('\ud800'),
      () => t5.encode('a', { length: 0 }),
      () => ClipTokenizer.create(host, t5Table.subarray(0, 4000)),
      () => T5Tokenizer.create(host, t5Table.subarray(0, 4000)),
    ];
    for (const run of refused) errorOf(run);
    const before = host.bytes.length;
    for (let i = 0; i < 100_000; i++) errorOf(refused[i % refused.length]!);
    expect(host.bytes.length).toBe(before);
    stillWorks();
  });

  it('does not grow when tokenizers come and go', () => {
    const round = () => {
      const tokenizers = [ClipTokenizer.create(host, clipTable), T5Tokenizer.create(host, t5Table)];
      for (const tokenizer of tokenizers) tokenizer.dispose();
    };
    round();
    const before = host.bytes.length;
    for (let i = 0; i < 30; i++) round();
    expect(host.bytes.length).toBe(before);
  });
});

/** The checksum of sdk/src/host/table-writer.ts, written again so that a damaged table can pass it. */
function checksum(data: Uint8Array): number {
  const whole = new Uint8Array((data.length >> 2) * 4 + 4);
  whole.set(data);
  let hash = 0x811c9dc5;
  for (const word of new Uint32Array(whole.buffer)) hash = Math.imul(hash ^ word, 0x01000193);
  return hash >>> 0;
}
