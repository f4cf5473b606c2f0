// Positions of several references, and several pictures stitched to one.
import { expect, it } from 'vitest';
import { loadHost } from '../../../sdk/src/host/module.ts';
import type { PixelImage } from '../../../sdk/src/image/pixels.ts';
import { checkRequest } from '../../../sdk/src/kontext/request.ts';
import { referencePlaces } from '../../../sdk/src/kontext/stages/references.ts';
import { sceneOf } from '../../../sdk/src/kontext/stages/scene.ts';

const host = await loadHost();

it('lays references right of each other or below, whichever keeps the whole smaller', () => {
  const places = (...sizes: [number, number][]) =>
    referencePlaces(
      'offset',
      sizes.map(([width, height]) => ({ width, height })),
    ).map((p) => [p.index, p.row, p.column]);
  expect(places([6, 4])).toEqual([[1, 0, 0]]);
  expect(places([6, 4], [6, 4])).toEqual([
    [1, 0, 0],
    [1, 4, 0],
  ]);
  expect(places([4, 6], [4, 6])).toEqual([
    [1, 0, 0],
    [1, 0, 4],
  ]);
  // 64×64 twice: equal, so below; then a tall one goes right of both.
  expect(places([4, 4], [4, 4], [2, 8])).toEqual([
    [1, 0, 0],
    [1, 4, 0],
    [1, 0, 4],
  ]);
  expect(
    referencePlaces('index', [
      { width: 2, height: 3 },
      { width: 4, height: 1 },
    ]),
  ).toEqual([
    { width: 2, height: 3, index: 1, row: 0, column: 0 },
    { width: 4, height: 1, index: 2, row: 0, column: 0 },
  ]);
});

function flat(width: number, height: number, level: number): PixelImage {
  const data = new Uint8ClampedArray(4 * width * height).fill(level);
  for (let i = 3; i < data.length; i += 4) data[i] = 255;
  return { width, height, data };
}

it.each([
  [
    'right',
    80,
    48,
    [
      [0, 10],
      [49, 255],
      [52, 90],
      [75, 90],
      [76, 255],
    ],
  ],
  [
    'left',
    80,
    48,
    [
      [0, 90],
      [23, 90],
      [24, 255],
      [27, 255],
      [28, 10],
      [75, 10],
      [76, 255],
    ],
  ],
  [
    'down',
    48,
    160,
    [
      [0, 10],
      [49, 255],
      [52, 90],
      [147, 90],
      [148, 255],
    ],
  ],
  [
    'up',
    48,
    160,
    [
      [0, 90],
      [95, 90],
      [96, 255],
      [100, 10],
      [147, 10],
      [148, 255],
    ],
  ],
] as const)('stitches to the %s without squeezing', async (stitchDirection, width, height, levels) => {
  const pictures = [flat(50, 50, 10), flat(20, 40, 90)];
  const request = checkRequest({
    prompt: 'x',
    image: pictures[0]!,
    references: [pictures[1]!],
    autoResize: false,
    referencePositions: 'stitched',
    stitchDirection,
    stitchSpacing: 4,
  });
  const { context, sizes } = await sceneOf(host, { ...request, pictures }, {});
  expect(context.length).toBe(1);
  expect(sizes.references).toEqual([{ width, height }]);
  const { data } = context[0]!.picture;
  const across = stitchDirection === 'right' || stitchDirection === 'left';
  for (const [at, level] of levels) expect(data[4 * (across ? at : at * width)], `at ${at}`).toBe(level);
});

it('refuses what belongs to another choice', () => {
  const image = flat(16, 16, 1);
  const refuse = (more: object, message: RegExp) =>
    expect(() => checkRequest({ prompt: 'x', image, ...more } as never)).toThrow(message);
  refuse({ stitchSpacing: 3 }, /stitchSpacing belongs to referencePositions "stitched"/);
  refuse({ referencePositions: 'uno' }, /must be one of "offset", "index", "stitched"/);
  refuse({ eta: 0.5 }, /eta belongs to sampler "euler_ancestral"/);
  refuse({ sampler: 'lcm' }, /sampler is "lcm"/);
  refuse({ sigmas: [1, 0.5], schedule: 'beta' }, /Leave out schedule, or sigmas/);
  refuse({ sigmas: [1, 0.5], steps: 3 }, /there are 2 sigmas/);
  for (const sigmas of [[], [0.5, 0.7], [1.2], [1, 0], [1, Number.NaN], 3]) refuse({ sigmas }, /sigmas/);
});
