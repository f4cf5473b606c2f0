// Refuses to pack a broken package: every file that package.json promises is there, whole, and no older than what it is made from.
// `prepack` runs it after the build; `npm pack` and `npm publish` stop when it fails.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

interface Manifest {
  version: string;
  bin: Record<string, string>;
  exports: Record<string, unknown>;
  files: string[];
}

/** What is wrong with the package in `root`, a sentence each; empty when it may be packed. */
export function packageProblems(root: string): string[] {
  const { bin, exports, files } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest;
  const problems: string[] = [];
  const promised = [...new Set([...Object.values(bin), ...targetsOf(exports), ...files.map((path) => `./${path}`)])];
  for (const path of promised) {
    const place = join(root, path);
    if (!existsSync(place)) problems.push(`${path} is missing`);
    else if (statSync(place).isFile() && statSync(place).size === 0) problems.push(`${path} is empty`);
  }
  const dist = join(root, 'dist');
  if (!existsSync(dist)) return problems;
  const built = readdirSync(dist, { recursive: true, encoding: 'utf8' }).map((name) => join(dist, name));
  for (const path of built.filter((path) => /\.(js|d\.ts)$/.test(path))) {
    for (const missing of importsOf(path).filter((file) => !existsSync(file)))
      problems.push(`${relative(root, path)} imports ${relative(root, missing)}, which is missing`);
  }
  const weights = join(root, 'examples/demo-model/model/transformer/diffusion_pytorch_model.safetensors');
  if (!existsSync(weights)) problems.push('the demo model has no weights');
  else if (statSync(weights).size < 100_000)
    problems.push('the demo model’s weights are a placeholder: run git lfs pull');
  return problems;
}

/** Files that conditions lead to, at any depth. */
function targetsOf(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return Object.values(value as Record<string, unknown>).flatMap(targetsOf);
}

/** Chunks that a built file loads, now or later. */
function importsOf(path: string): string[] {
  const text = readFileSync(path, 'utf8');
  const found = text.matchAll(/(?:from|import)\s*\(?\s*["'](\.\.?\/[^"'\n]+\.js)["']/g);
  // Declarations name the JavaScript beside which they lie.
  const end = path.endsWith('.d.ts') ? '.d.ts' : '.js';
  return [...found].map(([, name]) => join(dirname(path), name!.replace(/\.js$/, end)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const problems = packageProblems(fileURLToPath(new URL('..', import.meta.url)));
  if (problems.length > 0) {
    console.error(`This package is broken and will not be packed:\n${problems.map((line) => `  ${line}`).join('\n')}`);
    process.exit(1);
  }
}
