// The demo edit that every platform is held to: the request and the reference implementation's picture, from the fixture.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { decodeImage } from '../../sdk/src/image/node.ts';
import type { PixelImage } from '../../sdk/src/image/pixels.ts';

const folder = fileURLToPath(new URL('../fixtures/demo-model/', import.meta.url));

interface Run {
  name: string;
  prompt: string;
  seed: number;
  steps: number;
  input: string;
  output: string;
}

/** The edit of `test/fixtures/demo-model`: what to ask for, of which file, and what must come out. */
export async function demoEdit(): Promise<{
  request: { prompt: string; seed: number; steps: number };
  input: { folder: string; file: string };
  expected: PixelImage;
}> {
  const { runs } = JSON.parse(readFileSync(`${folder}meta.json`, 'utf8')) as { runs: Run[] };
  const { prompt, seed, steps, input, output } = runs.find(({ name }) => name === 'edit')!;
  return {
    request: { prompt, seed, steps },
    input: { folder, file: input },
    expected: await decodeImage(`${folder}${output}`, 'reference'),
  };
}
