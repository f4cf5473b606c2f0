// Sizes against what the reference implementations chose for real pictures, and a model's own preferred sizes.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { MAX_OUTPUT_SIDE } from '../../../sdk/src/kontext/options.ts';
import { chooseSizes } from '../../../sdk/src/kontext/sizes.ts';

interface Row {
  image_width: number;
  image_height: number;
  bfl: { context_width: number; context_height: number; target_width: number; target_height: number };
  diffusers_no_auto_resize: { context_width: number; context_height: number };
}
const table = JSON.parse(
  readFileSync(new URL('../../fixtures/schedules/resolutions.json', import.meta.url), 'utf8'),
) as { images: Row[] };
const auto = { size: 'auto', maxArea: undefined, autoResize: true } as const;

describe('chooseSizes', () => {
  it('chooses as BFL does for every picture of the fixture', () => {
    expect(table.images.length).toBeGreaterThan(10);
    for (const row of table.images) {
      const sizes = chooseSizes(auto, [{ width: row.image_width, height: row.image_height }], {});
      expect(sizes).toEqual({
        target: { width: row.bfl.target_width, height: row.bfl.target_height },
        references: [{ width: row.bfl.context_width, height: row.bfl.context_height }],
      });
    }
  });

  it('floors references as diffusers does when told not to resize', () => {
    for (const { image_width: width, image_height: height, diffusers_no_auto_resize: expected } of table.images) {
      if (width < 16 || height < 16 || Math.max(width, height) > MAX_OUTPUT_SIDE) continue;
      const { references } = chooseSizes({ ...auto, autoResize: false }, [{ width, height }], {});
      expect(references).toEqual([{ width: expected.context_width, height: expected.context_height }]);
    }
  });

  it('bounds references as it bounds pictures', () => {
    const tall = { width: 64, height: MAX_OUTPUT_SIDE + 16 };
    expect(() => chooseSizes({ ...auto, autoResize: false }, [tall], {})).toThrow(/A reference is 64×4112/);
    expect(() => chooseSizes(auto, [tall], {})).not.toThrow();
  });

  it('takes the model’s own sizes', () => {
    const model = { preferredSizes: [[64, 64] as [number, number], [96, 64] as [number, number]] };
    expect(chooseSizes(auto, [{ width: 900, height: 600 }], model)).toEqual({
      target: { width: 96, height: 64 },
      references: [{ width: 96, height: 64 }],
    });
    expect(chooseSizes(auto, [], model).target).toEqual({ width: 64, height: 64 });
    expect(chooseSizes(auto, [], {}).target).toEqual({ width: 1024, height: 1024 });
  });

  it('keeps an exact size, floors the input’s, and scales to an area', () => {
    const input = { width: 100, height: 50 };
    expect(chooseSizes({ ...auto, size: { width: 48, height: 80 } }, [input], {}).target).toEqual({
      width: 48,
      height: 80,
    });
    expect(chooseSizes({ ...auto, size: 'input' }, [input], {}).target).toEqual({ width: 96, height: 48 });
    const area = { ...auto, maxArea: 128 * 128 };
    expect(chooseSizes(area, [input], {}).target).toEqual({ width: 176, height: 80 });
    expect(chooseSizes({ ...area, size: { width: 10, height: 10 } }, [], {}).target).toEqual({
      width: 128,
      height: 128,
    });
  });

  it('refuses sides below a token and above the largest', () => {
    const input = (width: number, height: number) => [{ width, height }];
    expect(() => chooseSizes({ ...auto, autoResize: false }, input(40, 10), {})).toThrow(/40×10 has a side below 16/);
    expect(() => chooseSizes({ ...auto, size: 'input' }, input(9000, 64), {})).toThrow(/8992×64; sides go up to 4096/);
    expect(() => chooseSizes({ ...auto, maxArea: 4096 }, input(4000, 10), {})).toThrow(/below 16/);
  });
});
