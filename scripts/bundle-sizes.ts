// Measures the runtime and the compiler as a page would load them: bundled, minified, gzipped; what they fetch on demand is not among it.
// Fails over their limits.
// Run by `npx tsx scripts/bundle-sizes.ts` and by a test.

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type * as Esbuild from 'esbuild';

/** Entry of each bundle and the most bytes it may take gzipped. */
export const BUNDLES = {
  runtime: { entry: 'runtime/src/index.ts', limitBytes: 30 * 1024 },
  compiler: { entry: 'kernels-codegen/src/compile.ts', limitBytes: 60 * 1024 },
} as const;

export async function bundleBytes(entry: string): Promise<{ minified: number; gzipped: number }> {
  // esbuild comes with tsup, which builds the package.
  const require = createRequire(createRequire(import.meta.url).resolve('tsup/package.json'));
  const { build } = require('esbuild') as typeof Esbuild;
  const { outputFiles, metafile } = await build({
    entryPoints: [fileURLToPath(new URL(`../${entry}`, import.meta.url))],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    external: ['node:*'],
    splitting: true,
    outdir: 'out',
    metafile: true,
    write: false,
    logLevel: 'error',
  });
  const paths = Object.keys(metafile.outputs);
  const needed = new Set(paths.filter((path) => metafile.outputs[path]!.entryPoint?.endsWith(entry)));
  for (const path of needed) {
    for (const { path: next, kind } of metafile.outputs[path]!.imports)
      if (kind === 'import-statement') needed.add(next);
  }
  const files = outputFiles.filter((_, i) => needed.has(paths[i]!)).map(({ contents }) => contents);
  return {
    minified: files.reduce((sum, { length }) => sum + length, 0),
    gzipped: files.reduce((sum, bytes) => sum + gzipSync(bytes, { level: 9 }).length, 0),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [name, { entry, limitBytes }] of Object.entries(BUNDLES)) {
    const { minified, gzipped } = await bundleBytes(entry);
    console.log(`${name}: ${minified} bytes minified, ${gzipped} gzipped of ${limitBytes} allowed`);
    if (gzipped > limitBytes) process.exitCode = 1;
  }
}
