// Profiles of `kontext tune` as hostile input: whatever a file holds, it is read as written, or refused with a sentence.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import { checkTuning, openTuning, type TuningProfile, tunedTarget } from '../../../sdk/src/tune/profile.ts';

const adapter = { vendor: 'mesa', architecture: 'llvmpipe', device: '', description: 'llvmpipe: Mesa 25' };
const good: TuningProfile = {
  schema: 'kontext-tuning-1',
  adapter,
  tuned: {
    matmul: { '64×64×64 f16 f32': { variant: 'direct', threads: 8, rows: 4 } },
    attention: {
      '2×64 8×8 f16': { variant: 'matrix', config: { m: 8, n: 8, k: 8, componentType: 'f16' }, blocks: 1 },
    },
  },
  gains: [{ family: 'matmul', shape: '64×64×64 f16 f32', flops: 524288, estimateMs: 2, tunedMs: 1 }],
};
const folder = mkdtempSync(join(tmpdir(), 'kontext-tuning-'));
afterAll(() => rmSync(folder, { recursive: true }));

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(KontextError);
    expect((error as KontextError).code).toBe('invalid-request');
    return (error as Error).message;
  }
  throw new Error('was taken');
}

describe('checkTuning', () => {
  it('takes what kontext tune writes, and nothing beside it', () => {
    expect(checkTuning(JSON.parse(JSON.stringify({ ...good, extra: 1 })))).toEqual(good);
  });

  it.each<[string, unknown, RegExp]>([
    ['nothing', undefined, /no record/],
    ['a list', [], /no record/],
    ['another schema', { ...good, schema: 'kontext-tuning-9' }, /schema/],
    ['no adapter', { ...good, adapter: undefined }, /adapter/],
    ['a long name', { ...good, adapter: { ...adapter, vendor: 'x'.repeat(1e6) } }, /at most 200/],
    ['an unknown family', { ...good, tuned: { shell: {} } }, /family/],
    ['a family of no records', { ...good, tuned: { matmul: 'rm' } }, /no record/],
    ['a schedule of code', { ...good, tuned: { matmul: { a: 'enable f16;' } } }, /no record/],
    ['deep records', { ...good, tuned: { matmul: { a: { b: { c: { d: 1 } } } } } }, /no (record|number)/],
    ['what is no number', { ...good, tuned: { matmul: { a: { rows: null } } } }, /no record|no number/],
    [
      'too many fields',
      { ...good, tuned: { matmul: { a: Object.fromEntries([...Array(40).keys()].map((i) => [`f${i}`, i])) } } },
      /16 fields/,
    ],
    [
      'too many shapes',
      { ...good, tuned: { matmul: Object.fromEntries([...Array(5000).keys()].map((i) => [`s${i}`, {}])) } },
      /4096/,
    ],
    ['gains of another kind', { ...good, gains: {} }, /gains/],
    ['a gain without its time', { ...good, gains: [{ family: 'matmul', shape: '', flops: 1 }] }, /no number/],
  ])('refuses %s', (_, content, message) => {
    expect(refusal(() => checkTuning(content))).toMatch(message);
  });

  it('reads names of the language as any other', () => {
    const text = JSON.stringify(good).replace('64×64×64 f16 f32', '__proto__');
    const { tuned } = checkTuning(JSON.parse(text));
    expect(Object.keys(tuned.matmul!)).toEqual(['__proto__']);
    expect(({} as Record<string, unknown>).variant).toBeUndefined();
  });
});

describe('openTuning', () => {
  it('reads files', async () => {
    const path = join(folder, 'tuning.json');
    writeFileSync(path, JSON.stringify(good));
    expect(await openTuning(path)).toEqual(good);
  });

  it.each<[string, string | Uint8Array, RegExp]>([
    ['cut.json', JSON.stringify(good).slice(0, 90), /not JSON/],
    ['bytes.json', new Uint8Array([0xff, 0xfe, 0x80]), /UTF-8/],
    ['huge.json', ' '.repeat(5 * 2 ** 20), /at most/],
  ])('refuses %s', async (name, content, message) => {
    const path = join(folder, name);
    writeFileSync(path, content);
    const error = await openTuning(path).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(KontextError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toContain('llvmpipe');
  });

  it('says that a file is not there', async () => {
    await expect(openTuning(join(folder, 'none.json'))).rejects.toThrow(/cannot be read/);
  });
});

describe('tunedTarget', () => {
  const target = targetByName('lavapipe');

  it('takes a profile of the same adapter, also where a browser tells less', () => {
    expect(tunedTarget(target, good, adapter).tuned).toEqual(good.tuned);
    expect(tunedTarget(target, good, { ...adapter, vendor: 'Mesa', description: '' }).tuned).toEqual(good.tuned);
  });

  it('refuses one of another adapter or driver', () => {
    expect(refusal(() => tunedTarget(target, good, { ...adapter, vendor: 'nvidia' }))).toMatch(/measured on llvmpipe/);
    expect(refusal(() => tunedTarget(target, good, { ...adapter, description: 'llvmpipe: Mesa 26' }))).toMatch(
      /Mesa 26/,
    );
  });
});
