// Builds the package's library entries for Node and its command line, with type declarations.
// Splitting keeps the compiler in chunks of its own: they are loaded only when no prebuilt program matches.
import { defineConfig } from 'tsup';

export default defineConfig({
  entry: { node: 'sdk/src/node.ts', cli: 'sdk/src/cli/main.ts', server: 'sdk/src/server/index.ts' },
  format: 'esm',
  platform: 'node',
  target: 'node20',
  splitting: true,
  treeshake: true,
  // What scripts/build-browser.ts made stays.
  clean: ['!browser/**'],
  dts: {
    entry: {
      node: 'sdk/src/node.ts',
      browser: 'sdk/src/browser.ts',
      client: 'sdk/src/worker/client.ts',
      element: 'sdk/src/element/element.ts',
      remote: 'sdk/src/remote/remote.ts',
      server: 'sdk/src/server/index.ts',
      'strings-de': 'sdk/src/element/strings-de.ts',
    },
  },
  external: ['webgpu', 'sharp', 'hono', '@hono/node-server', 'zod', 'prom-client', 'pino', 'bullmq', 'ioredis'],
});
