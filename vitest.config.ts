// Test runner settings: GPU suites share one software adapter, so files run in two processes at most.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    // A software driver compiles a kernel for up to seconds on its first dispatch.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    teardownTimeout: 5_000,
  },
});
