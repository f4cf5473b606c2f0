// The tiny reference pipeline as a model: weights of the fixture, tokenizers of the demo model (the same vocabularies).
// Joined at open time, because four megabytes of vocabulary need not be in the repository twice.
import { cpSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { folderFiles, type ModelFiles } from '../../sdk/src/model/files.ts';

const root = new URL('../..', import.meta.url).pathname;
const FIXTURE = join(root, 'test/fixtures/pipeline');
const TOKENIZERS = join(root, 'examples/demo-model/model');

/** A file of the fixture. */
export const pipelineFile = (name: string) => join(FIXTURE, name);

/** @param over a fixture that has some of the folders of its own, such as a transformer */
export function pipelineModel(over?: string): ModelFiles {
  const [weights, tokenizers] = [folderFiles(join(FIXTURE, 'model')), folderFiles(TOKENIZERS)];
  const own = over === undefined ? undefined : folderFiles(join(root, 'test/fixtures', over));
  const replaced = over === undefined ? [] : readdirSync(join(root, 'test/fixtures', over));
  return {
    label: 'the reference pipeline',
    open: (name, signal) => {
      if (own && replaced.includes(name.split('/')[0]!)) return own.open(name, signal);
      return (name.startsWith('tokenizer') ? tokenizers : weights).open(name, signal);
    },
  };
}

/** The same as a folder on disk, for what takes a path. */
export function writePipelineModel(folder: string): void {
  mkdirSync(folder, { recursive: true });
  cpSync(join(FIXTURE, 'model'), folder, { recursive: true });
  for (const name of ['tokenizer', 'tokenizer_2'])
    cpSync(join(TOKENIZERS, name), join(folder, name), { recursive: true });
}

/** Arguments of a run, as the reference pipeline got them. */
export interface PipelineRun {
  name: string;
  png: string[];
  prompts: string[];
  negativePrompt?: string;
  trueCfgScale?: number;
  steps: number;
  guidance: number;
  maxSequenceLength: number;
  width: number;
  height: number;
  seeds: number[];
  /** Path of the picture to edit; absent for text-to-image. */
  image?: string;
}

interface Meta {
  runs: Record<string, { png: string[]; arguments: Record<string, unknown> }>;
}

/** All runs of the fixture. */
export function pipelineRuns(): PipelineRun[] {
  const meta = JSON.parse(readFileSync(pipelineFile('meta.json'), 'utf8')) as Meta;
  return Object.entries(meta.runs).map(([name, { png, arguments: a }]) => ({
    name,
    png: png.map(pipelineFile),
    prompts: (Array.isArray(a.prompt) ? a.prompt : [a.prompt]) as string[],
    ...(a.negative_prompt !== undefined && { negativePrompt: a.negative_prompt as string }),
    ...(a.true_cfg_scale !== undefined && { trueCfgScale: a.true_cfg_scale as number }),
    steps: a.num_inference_steps as number,
    guidance: a.guidance_scale as number,
    maxSequenceLength: (a.max_sequence_length as number | undefined) ?? 512,
    width: a.width as number,
    height: a.height as number,
    seeds: a.seeds as number[],
    ...(a.image_file !== null && { image: pipelineFile(a.image_file as string) }),
  }));
}
