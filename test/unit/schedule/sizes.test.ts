// Sizes chosen by our rules against those chosen by the code of both reference implementations.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  PREFERRED_KONTEXT_SIZES,
  referenceSize,
  requestedSize,
  sizeForAspectRatio,
  targetSize,
} from '../../../sdk/src/host/sizes.ts';

interface Choice {
  context_width: number;
  context_height: number;
  target_width: number;
  target_height: number;
}

interface Resolutions {
  preferred_kontext_resolutions_width_height: [number, number][];
  images: {
    image_width: number;
    image_height: number;
    bfl: Choice & { context_tokens: number; target_tokens: number };
    diffusers_auto_resize: Choice | { error: string };
    diffusers_no_auto_resize: Choice | { error: string };
  }[];
  diffusers_requested_target: {
    requested_width: number | null;
    requested_height: number | null;
    max_area: number;
    target_width: number;
    target_height: number;
  }[];
  bfl_aspect_ratio_to_size: { aspect_ratio: string; width: number; height: number }[];
  bfl_requested_target: {
    target_width_argument: number;
    target_height_argument: number;
    latent_width: number;
    latent_height: number;
    target_tokens: number;
  }[];
}

const resolutions = JSON.parse(
  readFileSync(new URL('../../fixtures/schedules/resolutions.json', import.meta.url), 'utf8'),
) as Resolutions;
const refused = expect.objectContaining({ code: 'invalid-request' });

describe('sizes', () => {
  it('has the table of the reference', () => {
    expect(PREFERRED_KONTEXT_SIZES).toEqual(resolutions.preferred_kontext_resolutions_width_height);
  });

  it.each(resolutions.images.map((c) => [c.image_width, c.image_height, c] as const))(
    'image %i × %i',
    (width, height, c) => {
      expect(referenceSize({ rule: 'bfl', width, height })).toEqual({
        width: c.bfl.context_width,
        height: c.bfl.context_height,
      });
      const target = targetSize({ rule: 'bfl', width, height });
      expect(target).toEqual({ width: c.bfl.target_width, height: c.bfl.target_height });
      expect((target.width / 16) * (target.height / 16)).toBe(c.bfl.target_tokens);
      for (const [autoResize, choice] of [
        [true, c.diffusers_auto_resize],
        [false, c.diffusers_no_auto_resize],
      ] as const) {
        if ('error' in choice) {
          // The reference divides by zero for images smaller than a token.
          expect(() => referenceSize({ rule: 'diffusers', width, height, autoResize })).toThrow(refused);
        } else {
          expect(referenceSize({ rule: 'diffusers', width, height, autoResize })).toEqual({
            width: choice.context_width,
            height: choice.context_height,
          });
          expect(targetSize({ rule: 'diffusers' })).toEqual({
            width: choice.target_width,
            height: choice.target_height,
          });
        }
      }
    },
  );

  it('scales a requested size as FluxKontextPipeline does', () => {
    for (const c of resolutions.diffusers_requested_target) {
      const width = c.requested_width ?? undefined;
      const height = c.requested_height ?? undefined;
      expect(targetSize({ rule: 'diffusers', width, height, maxArea: c.max_area })).toEqual({
        width: c.target_width,
        height: c.target_height,
      });
    }
  });

  it('follows BFL’s aspect ratios and requested sizes', () => {
    for (const c of resolutions.bfl_aspect_ratio_to_size) {
      const [across, down] = c.aspect_ratio.split(':').map(Number);
      expect(sizeForAspectRatio(across! / down!)).toEqual({ width: c.width, height: c.height });
    }
    for (const c of resolutions.bfl_requested_target) {
      expect(requestedSize({ width: c.target_width_argument, height: c.target_height_argument })).toEqual({
        width: c.latent_width * 8,
        height: c.latent_height * 8,
      });
    }
  });

  it('takes the narrower of two sizes that are equally near', () => {
    // 1024 / 1024 and 1104 / 944 have (2048 / 1888) in the middle, and float64 sees the tie.
    const aspect = 2048 / 1888;
    expect(Math.abs(aspect - 1024 / 1024)).toBe(Math.abs(aspect - 1104 / 944));
    expect(targetSize({ rule: 'bfl', width: 2048, height: 1888 }).width).toBe(1024);
  });

  it('refuses sizes that are none', () => {
    for (const width of [0, -1, NaN, Infinity, 1.5]) {
      expect(() => targetSize({ rule: 'bfl', width, height: 100 })).toThrow(refused);
      expect(() => targetSize({ rule: 'diffusers', width, height: 100 })).toThrow(refused);
      expect(() => referenceSize({ rule: 'diffusers', width: 100, height: width })).toThrow(refused);
      expect(() => requestedSize({ width, height: 16 })).toThrow(refused);
    }
    expect(() => targetSize({ rule: 'diffusers', width: 1, height: 100_000 })).toThrow(refused);
    expect(() => targetSize({ rule: 'diffusers', maxArea: 0 })).toThrow(refused);
    expect(() => sizeForAspectRatio(0)).toThrow(refused);
    expect(() => sizeForAspectRatio(1, NaN)).toThrow(refused);
    expect(() => sizeForAspectRatio(1e9)).toThrow(refused);
  });
});
