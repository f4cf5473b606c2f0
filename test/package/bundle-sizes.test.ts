// Download sizes are promises: at most 30 KiB gzipped for the runtime, 60 KiB for the compiler.

import { expect, it } from 'vitest';
import { BUNDLES, bundleBytes } from '../../scripts/bundle-sizes.ts';

it.each(Object.entries(BUNDLES))('the %s stays within its limit', async (_, { entry, limitBytes }) => {
  const { gzipped } = await bundleBytes(entry);
  expect(gzipped).toBeLessThanOrEqual(limitBytes);
  expect(gzipped).toBeGreaterThan(5000);
});
