// The TypeScript scenes against the Python ones that the demo model was trained on: does the quality test judge by the same truth?
// One hash over all pictures, made by the recipe with Pillow, so that neither Python nor 32 MB of pictures are needed here.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import * as quality from '../../quality/scenes.ts';

const truth = JSON.parse(
  readFileSync(new URL('../../quality/scene-pictures/scenes.json', import.meta.url), 'utf8'),
) as {
  scenes: number;
  sha256: string;
};

describe('scenes', () => {
  it('renders every scene byte for byte as the training recipe does', () => {
    const hash = createHash('sha256');
    let count = 0;
    for (const scene of quality.allScenes()) {
      hash.update(quality.render(scene));
      count++;
    }
    expect(count).toBe(truth.scenes);
    expect(hash.digest('hex')).toBe(truth.sha256);
  });

  it('finds a scene again in its disturbed picture, and says how far off it is', () => {
    const random = quality.seededRandom(3);
    const scene = quality.sampleEdit(random, 'generate').target;
    const picture = quality.render(scene);
    expect(quality.nearestScene(picture)).toEqual({ scene, meanSquaredError: 0 });
    const disturbed = picture.map((v) => (v >= 128 ? v - 8 : v + 8));
    const found = quality.nearestScene(disturbed);
    expect(found.scene).toEqual(scene);
    expect(found.meanSquaredError).toBe(64);
    expect(() => quality.nearestScene(picture.subarray(3))).toThrow(/bytes/);
  });

  it('draws edits that change what their kind says and nothing else', () => {
    const changes: Record<quality.EditKind, (keyof quality.Scene)[]> = {
      generate: [],
      background: ['background'],
      replace: ['thing'],
      remove: ['thing', 'place', 'size'],
      add: ['thing', 'place', 'size'],
      move: ['place'],
      resize: ['size'],
      grayscale: ['effect'],
      negative: ['effect'],
    };
    const random = quality.seededRandom(1);
    for (const kind of quality.EDIT_KINDS) {
      for (let i = 0; i < 50; i++) {
        const { context, target, prompt } = quality.sampleEdit(random, kind);
        expect(prompt).toMatch(/^[a-z ]+$/);
        if (context === undefined) {
          expect(kind).toBe('generate');
          continue;
        }
        expect(quality.sameScene(context, target), `${prompt}: ${quality.describe(context)}`).toBe(false);
        for (const key of Object.keys(target) as (keyof quality.Scene)[])
          if (!changes[kind].includes(key)) expect(target[key], `${prompt}: ${key}`).toBe(context[key]);
      }
    }
  });

  it('repeats its draws for the same seed only', () => {
    const draws = (seed: number): string[] => {
      const random = quality.seededRandom(seed);
      return quality.EDIT_KINDS.map((kind) => quality.sampleEdit(random, kind).prompt);
    };
    expect(draws(5)).toEqual(draws(5));
    expect(draws(5)).not.toEqual(draws(6));
  });
});
