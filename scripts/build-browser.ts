// Builds dist/browser and tells what a page must load, gzipped; fails when a limit is passed.
// Size is a promise to apps that embed the SDK, so growth must be decided, not discovered.
import { copyFileSync, readFileSync, rmSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { rollup } from 'rollup';
import configs from '../rollup.config.ts';

/** KiB gzipped. */
const LIMITS: Record<string, { files: string[]; limit: number }> = {
  'engine in the page': { files: ['kontext.js', 'wasm.js'], limit: 120 },
  'engine in a worker': { files: ['client.js', 'worker.js', 'kontext.js', 'wasm.js'], limit: 120 },
  'web component and worker': { files: ['element.js', 'client.js', 'worker.js', 'kontext.js', 'wasm.js'], limit: 120 },
  compiler: { files: ['compiler.js'], limit: 60 },
};

rmSync('dist/browser', { recursive: true, force: true });
const chunks = new Map<string, string[]>();
for (const { output, ...input } of configs) {
  const build = await rollup(input);
  const { output: written } = await build.write(output);
  for (const item of written) if (item.type === 'chunk') chunks.set(item.fileName, item.imports);
  await build.close();
}

// For pages that fetch the module instead of carrying it: option `host.wasmUrl`.
copyFileSync('sdk/src/host/kontext.wasm', 'dist/browser/kontext.wasm');

let failed = false;
for (const [name, { files, limit }] of Object.entries(LIMITS)) {
  // The compiler comes on top of an engine that is there already.
  const needed = name === 'compiler' ? files : withImports(files);
  const bytes = needed.reduce(
    (sum, file) => sum + gzipSync(readFileSync(`dist/browser/${file}`), { level: 9 }).length,
    0,
  );
  const kib = bytes / 1024;
  console.log(`${name}: ${kib.toFixed(1)} KiB gzipped of ${limit} (${needed.join(', ')})`);
  failed ||= kib > limit;
}
if (failed) {
  console.error('A size limit is passed. See LIMITS in scripts/build-browser.ts.');
  process.exitCode = 1;
}

/** `files` and every chunk they import statically. */
function withImports(files: string[]): string[] {
  const found = new Set(files);
  for (const file of found) for (const next of chunks.get(file) ?? []) found.add(next);
  return [...found];
}
