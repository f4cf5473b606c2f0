// What `npm pack` refuses: a package whose promised files are missing, empty or import what is not there.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { packageProblems } from '../../../scripts/check-package.ts';

let root: string;
const put = (path: string, content: string | Buffer) => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
};

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'kontext-check-'));
  put(
    'package.json',
    JSON.stringify({
      bin: { kontext: './dist/cli.js' },
      exports: {
        '.': {
          browser: { types: './dist/browser.d.ts', default: './dist/browser/kontext.js' },
          default: './dist/node.js',
        },
      },
      files: ['dist', 'README.md', 'examples/demo-model/model'],
    }),
  );
  put('README.md', '# x');
  put('dist/cli.js', 'import "./chunk.js"; const later = () => import("./later.js");');
  for (const name of ['chunk', 'later', 'node', 'browser/kontext']) put(`dist/${name}.js`, 'export {};');
  put('dist/browser.d.ts', 'export {};');
  put('examples/demo-model/model/transformer/diffusion_pytorch_model.safetensors', Buffer.alloc(200_000));
});
afterEach(() => rmSync(root, { recursive: true }));

it('a whole package passes', () => {
  expect(packageProblems(root)).toEqual([]);
});

it.each<[what: string, spoil: () => void, problem: RegExp]>([
  ['no build at all', () => rmSync(join(root, 'dist'), { recursive: true }), /dist\/cli.js is missing/],
  [
    'no build for browsers',
    () => rmSync(join(root, 'dist/browser'), { recursive: true }),
    /browser\/kontext.js is missing/,
  ],
  ['no types', () => rmSync(join(root, 'dist/browser.d.ts')), /browser.d.ts is missing/],
  ['an empty file', () => put('dist/node.js', ''), /node.js is empty/],
  ['a lost chunk', () => rmSync(join(root, 'dist/chunk.js')), /cli.js imports dist\/chunk.js, which is missing/],
  ['a lost lazy chunk', () => rmSync(join(root, 'dist/later.js')), /later.js, which is missing/],
  ['no README', () => rmSync(join(root, 'README.md')), /README.md is missing/],
  ['no model', () => rmSync(join(root, 'examples'), { recursive: true }), /demo-model\/model is missing/],
  [
    'a pointer for the weights',
    () => put('examples/demo-model/model/transformer/diffusion_pytorch_model.safetensors', 'version https://git-lfs'),
    /placeholder/,
  ],
])('%s is refused', (_, spoil, problem) => {
  spoil();
  expect(packageProblems(root).join('\n')).toMatch(problem);
});
