// A few thousand changed inputs for each reader; `npm run fuzz` does millions.
import { expect, it } from 'vitest';
import { fuzz } from './fuzz.ts';
import { mutateBytes, mutateJson, randomOf } from './mutate.ts';

it('no reader loses an input', { timeout: 300_000 }, async () => {
  const tallies = await fuzz(20261125, 1500);
  expect(tallies.length).toBeGreaterThan(12);
  expect(tallies.flatMap(({ losses }) => losses)).toEqual([]);
  // Mutations that were all taken or all refused alike would try nothing.
  expect(tallies.reduce((sum, { taken }) => sum + taken, 0)).toBeGreaterThan(100);
  for (const { refused, target } of tallies) expect(refused, target).toBeGreaterThan(0);
});

it('the same seed gives the same inputs', () => {
  const bytes = () =>
    mutateBytes(
      randomOf(7),
      Uint8Array.from({ length: 40 }, (_, i) => i),
    );
  const json = () => mutateJson(randomOf(7), '{"a":[1,2,{"b":"c"}]}');
  expect(bytes()).toEqual(bytes());
  expect(json()).toEqual(json());
});
