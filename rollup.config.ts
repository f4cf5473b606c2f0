// Builds the package for pages: entries that share chunks, the compiler in a chunk of its own, and one file with everything.
// Run by scripts/build-browser.ts, which also holds the sizes to their limits.
import { transform } from 'esbuild';
import type { Plugin, RollupOptions } from 'rollup';

/** esbuild's part in a rollup build: types off, modern syntax kept, output minified. */
function typescript(): Plugin {
  return {
    name: 'typescript',
    async transform(source, id) {
      if (!id.endsWith('.ts')) return null;
      const { code, map } = await transform(source, {
        loader: 'ts',
        target: TARGET,
        sourcefile: id,
        sourcemap: true,
        // As tsconfig.json says: imports not marked as types stay.
        tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true } },
      });
      return { code, map };
    },
    async renderChunk(source) {
      const { code, map } = await transform(source, { minify: true, format: 'esm', target: TARGET, sourcemap: true });
      return { code, map };
    },
  };
}

/** Pages have no files and no Dawn; bundlers of apps stumble over the mere name `node:fs` and over computed imports. */
function withoutNode(): Plugin {
  return {
    name: 'without-node',
    transform(source, id) {
      if (!/runtime\/src|sdk\/src/.test(id)) return null;
      const missing = "Promise.reject(new Error('not in a browser'))";
      const code = source
        .replaceAll(/\bimport\(["']node:[a-z/]+["']\)/g, missing)
        .replaceAll(/\bimport\(\s*\/\* @vite-ignore \*\/\s*name\s*\)/g, missing);
      return code === source ? null : { code, map: null };
    },
  };
}

/** Chrome 113 was the first with WebGPU; Safari 26 and Firefox 141 came later. `using` and the like are lowered to it. */
const TARGET = 'es2022';

// Types first: they may name Node's modules, too.
const plugins = [typescript(), withoutNode()];

export default [
  {
    input: {
      kontext: 'sdk/src/browser.ts',
      client: 'sdk/src/worker/client.ts',
      worker: 'sdk/src/worker/worker.ts',
      element: 'sdk/src/element/element.ts',
      remote: 'sdk/src/remote/remote.ts',
      'strings-de': 'sdk/src/element/strings-de.ts',
    },
    plugins,
    output: {
      dir: 'dist/browser',
      format: 'es',
      sourcemap: true,
      entryFileNames: '[name].js',
      chunkFileNames: '[name].js',
      onlyExplicitManualChunks: true,
      manualChunks(id) {
        if (id.includes('/kernels-codegen/')) return 'compiler';
        if (id.endsWith('wasm.generated.ts')) return 'wasm';
        if (id.endsWith('tables.generated.ts')) return 'tables';
        return undefined;
      },
    },
  },
  {
    input: 'sdk/src/browser.ts',
    plugins,
    // Vocabularies that few models lack: the chunk beside it, also for the file with everything.
    external: (id: string) => id.endsWith('tables.generated.ts'),
    output: {
      paths: (id: string) => (id.endsWith('tables.generated.ts') ? './tables.js' : id),
      file: 'dist/browser/kontext.standalone.js',
      format: 'es',
      sourcemap: true,
      inlineDynamicImports: true,
    },
  },
] satisfies RollupOptions[];
