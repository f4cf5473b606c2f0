// Settings of `npm run test:package`: the packed package in fresh projects, one step after the other.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/package/**/*.package.ts'],
    pool: 'forks',
    maxWorkers: 1,
    fileParallelism: false,
    // Bundlers, the type checker and a software adapter, perhaps on a busy machine.
    testTimeout: 900_000,
    hookTimeout: 600_000,
    teardownTimeout: 5_000,
  },
});
