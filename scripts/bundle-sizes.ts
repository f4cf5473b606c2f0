// Measures the runtime and the compiler as a page would load them: bundled, minified, gzipped. Fails over their limits.
// Run by `npx tsx scripts/bundle-sizes.ts` and by a test.

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type * as Esbuild from 'esbuild';

/** Entry of each bundle and the most bytes it may take gzipped. */
export const BUNDLES = {
  runtime: { entry: 'runtime/src/index.ts', limitBytes: 33 * 1024 },
  compiler: { entry: 'kernels-codegen/src/compile.ts', limitBytes: 60 * 1024 },
} as const;

export async function bundleBytes(entry: string): Promise<{ minified: number; gzipped: number }> {
  // esbuild comes with tsup, which builds the package.
  const require = createRequire(createRequire(import.meta.url).resolve('tsup/package.json'));
  const { build } = require('esbuild') as typeof Esbuild;
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(`../${entry}`, import.meta.url))],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    external: ['node:*'],
    write: false,
    logLevel: 'error',
  });
  const bytes = outputFiles[0]!.contents;
  return { minified: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [name, { entry, limitBytes }] of Object.entries(BUNDLES)) {
    const { minified, gzipped } = await bundleBytes(entry);
    console.log(`${name}: ${minified} bytes minified, ${gzipped} gzipped of ${limitBytes} allowed`);
    if (gzipped > limitBytes) process.exitCode = 1;
  }
}
