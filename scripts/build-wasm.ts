// Compiles sdk/assembly to WASM: a file for `wasmUrl`, and a module with the same bytes in base64.
// Does nothing when the sources, this script and the compiler are those of the last build, so every test run may call it.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { deflateRawSync, gzipSync } from 'node:zlib';

const root = fileURLToPath(new URL('../', import.meta.url));
const sources = `${root}sdk/assembly/`;
const wasmFile = `${root}sdk/src/host/kontext.wasm`;
const moduleFile = `${root}sdk/src/host/wasm.generated.ts`;

const key = inputsKey();
if (!upToDate()) await build();

async function build(): Promise<void> {
  const { default: asc } = await import('assemblyscript/asc');
  const outputs = new Map<string, string | Uint8Array>();
  const diagnostics: string[] = [];
  // -O3 without a size goal: the module is small beside its limit (60 KiB gzipped) and tokenizing speed is a promise.
  // `abort=` turns AssemblyScript's abort into a trap, so the module imports nothing at all.
  const options = '--runtime stub --optimizeLevel 3 --shrinkLevel 0 --converge --enable simd --use abort='.split(' ');
  const { error } = await asc.main(['index.ts', '--outFile', 'out.wasm', '--textFile', 'out.wat', ...options], {
    readFile: (name: string, baseDir: string) => {
      const path = name.startsWith('/') ? name : `${baseDir === '.' ? sources : `${baseDir}/`}${name}`;
      return existsSync(path) ? readFileSync(path, 'utf8') : null;
    },
    writeFile: (name: string, contents: string | Uint8Array) => {
      outputs.set(name, contents);
    },
    listFiles: () => [],
    stderr: { write: (text: string | Uint8Array) => void diagnostics.push(text.toString()) },
  });
  if (error) throw new Error(`asc: ${error.message}\n${diagnostics.join('')}`);
  const wasm = outputs.get('out.wasm') as Uint8Array;
  if (String(outputs.get('out.wat')).includes('~lib/rt/stub/__alloc')) {
    throw new Error('sdk/assembly allocates a managed object (array, string, class): use scratch() or memory.data()');
  }
  mkdirSync(`${root}sdk/src/host`, { recursive: true });
  writeFileSync(wasmFile, wasm);
  // Deflated before it becomes text: what a server compresses is then a sixth smaller than from the module's own base64.
  const base64 = deflateRawSync(wasm, { level: 9 }).toString('base64');
  writeFileSync(moduleFile, `// ${key}\nexport const deflatedWasmBase64 =\n  '${base64}';\n`);
  console.log(`kontext.wasm: ${wasm.length} bytes, ${gzipSync(wasm, { level: 9 }).length} gzipped`);
}

function upToDate(): boolean {
  if (!existsSync(wasmFile) || !existsSync(moduleFile)) return false;
  return readFileSync(moduleFile, 'utf8').startsWith(`// ${key}\n`);
}

function inputsKey(): string {
  const hash = createHash('sha256');
  const files = readdirSync(sources, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  for (const name of files.sort()) hash.update(`${name}\0`).update(readFileSync(sources + name));
  hash.update(readFileSync(fileURLToPath(import.meta.url)));
  hash.update(readFileSync(createRequire(import.meta.url).resolve('assemblyscript/package.json')));
  return hash.digest('hex');
}
