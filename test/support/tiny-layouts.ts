// The public layouts of the model as tiny files, each with the reference's result for one edit: for tests that open them as users do.
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { PixelImage } from '../../sdk/src/image/pixels.ts';
import { fixtureMeta, fixturePath } from './cases.ts';
import { pipelineFile, pipelineRuns, writePipelineModel } from './pipeline-model.ts';
import { floatTensor, readSafetensors } from './safetensors.ts';

/** The edit that the reference made with every one of them. */
export const FIELD_EDIT = {
  image: pipelineFile('input_1.png'),
  prompt: 'Replace the red car with a blue bicycle.',
  steps: 4,
  guidance: 2.5,
  seed: 42,
  size: { width: 96, height: 64 },
} as const;

type Size = Pick<PixelImage, 'width' | 'height'>;
export type Part = 'transformer' | 'vae' | 'clip' | 't5';

export interface TinyLayout {
  name: string;
  /** Writes its files below a folder. */
  write(folder: string): void;
  /** The model's place below the folder, or its parts one by one. */
  source: string | Record<Part, string>;
  edit: {
    image: string;
    prompt: string;
    steps: number;
    guidance: number;
    seed: number;
    size: { width: number; height: number };
  };
  /** The reference's final latents. */
  expected(): Float32Array;
  /** The reference's picture. @param like of its size */
  picture(like: Size): PixelImage;
  /** The reference's picture with the 16-bit file, where there is one of the same request. */
  plain?(like: Size): PixelImage;
  /** What a network's `config.json` says, for parts that come without their folder. */
  configs(): Record<'transformer' | 'clip' | 't5', Record<string, unknown>>;
}

const fixture = (name: string): string => fixturePath(name).pathname;
const json = (path: string): Record<string, unknown> => JSON.parse(readFileSync(path, 'utf8'));
const copy = (folder: string, files: Readonly<Record<string, string>>): void => {
  for (const [name, from] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    cpSync(from, join(folder, name));
  }
};

const ENCODERS = {
  'text_encoder/config.json': pipelineFile('model/text_encoder/config.json'),
  'text_encoder_2/config.json': pipelineFile('model/text_encoder_2/config.json'),
};
const CLIP = pipelineFile('model/text_encoder/model.safetensors');
const T5 = pipelineFile('model/text_encoder_2/model.safetensors');
const VAE = pipelineFile('model/vae/diffusion_pytorch_model.safetensors');
const BFL = fixture('field/base/flux1-kontext-dev.safetensors');

const fieldResults = (name: string) => readSafetensors(fixture(`field/${name}/expected.safetensors`));
const opaque = (rgb: ArrayLike<number>, { width, height }: Size): PixelImage => {
  const at = (i: number) => (i % 4 === 3 ? 255 : rgb[(i >> 2) * 3 + (i % 4)]!);
  return { width, height, data: Uint8ClampedArray.from({ length: width * height * 4 }, (_, i) => at(i)) };
};
const fieldPicture = (name: string) => (size: Size) => opaque(fieldResults(name).get('image')!.data, size);
const pipelineConfigs = () => ({
  transformer: json(pipelineFile('model/transformer/config.json')),
  clip: json(pipelineFile('model/text_encoder/config.json')),
  t5: json(pipelineFile('model/text_encoder_2/config.json')),
});
const of = (field: string, rest: Pick<TinyLayout, 'name' | 'write' | 'source'>): TinyLayout => ({
  ...rest,
  edit: FIELD_EDIT,
  expected: () => floatTensor(fieldResults(field), 'latents'),
  picture: fieldPicture(field),
  ...(field !== 'base' && { plain: fieldPicture('base') }),
  configs: pipelineConfigs,
});

/** The four parts as files of their own; those of transformer and T5 by name and what lies there. */
const oneByOne = (
  field: string,
  name: string,
  [transformer, transformerFile]: readonly [string, string],
  [t5Name, t5File]: readonly [string, string],
): TinyLayout => {
  const [vae, clip, t5] = ['ae.safetensors', 'text_encoder/clip_l.safetensors', `text_encoder_2/${t5Name}`] as const;
  const write = (folder: string) =>
    copy(folder, { ...ENCODERS, [transformer]: transformerFile, [vae]: VAE, [clip]: CLIP, [t5]: t5File });
  return of(field, { name, source: { transformer, vae, clip, t5 }, write });
};

const run = pipelineRuns().find(({ name }) => name === 'edit')!;
const allInOne = fixtureMeta('all-in-one');
const ALL_IN_ONE = fixture('all-in-one/edit.safetensors');

export const TINY_LAYOUTS: readonly TinyLayout[] = [
  {
    name: 'diffusers’ folder',
    source: '',
    write: writePipelineModel,
    edit: {
      ...FIELD_EDIT,
      image: run.image!,
      prompt: run.prompts[0]!,
      steps: run.steps,
      guidance: run.guidance,
      seed: run.seeds[0]!,
      size: { width: run.width, height: run.height },
    },
    expected: () => {
      const steps = floatTensor(readSafetensors(pipelineFile('edit.safetensors')), 'mid.latents_after_step');
      return steps.slice(-steps.length / run.steps);
    },
    picture: (size) => opaque(readSafetensors(pipelineFile('edit.safetensors')).get('out.image_uint8')!.data, size),
    configs: pipelineConfigs,
  },
  oneByOne(
    'base',
    'BFL’s file and parts one by one',
    ['flux1-kontext-dev.safetensors', BFL],
    ['t5xxl_fp16.safetensors', T5],
  ),
  oneByOne(
    't5-gguf',
    'T5 as GGUF',
    ['flux1-kontext-dev.safetensors', BFL],
    ['t5-v1_1-xxl-encoder-F16.gguf', fixture('field/t5-gguf/t5-v1_1-xxl-encoder-F16.gguf')],
  ),
  oneByOne(
    'weights-gguf-q4_k',
    'the transformer as GGUF',
    ['flux1-kontext-dev-Q4_K.gguf', fixture('field/weights-gguf-q4_k/flux1-kontext-dev-Q4_K.gguf')],
    ['t5xxl_fp16.safetensors', T5],
  ),
  oneByOne(
    't5-fp8-e4m3fn',
    'T5 in fp8',
    ['flux1-kontext-dev.safetensors', BFL],
    ['t5xxl_fp8_e4m3fn.safetensors', fixture('field/t5-fp8-e4m3fn/t5xxl_fp8_e4m3fn.safetensors')],
  ),
  of('weights-fp8-scaled', {
    name: 'ComfyUI’s models folder, in scaled fp8',
    source: 'models/diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors',
    write: (folder) =>
      copy(join(folder, 'models'), {
        ...ENCODERS,
        'diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors': fixture(
          'field/weights-fp8-scaled/flux1-dev-kontext_fp8_scaled.safetensors',
        ),
        'vae/ae.safetensors': VAE,
        'text_encoders/clip_l.safetensors': CLIP,
        'text_encoders/t5xxl_fp16.safetensors': T5,
      }),
  }),
  {
    name: 'an all-in-one checkpoint',
    source: 'checkpoint.safetensors',
    write(folder) {
      copy(folder, { 'checkpoint.safetensors': fixture('all-in-one/checkpoint.safetensors') });
      const { clip, t5, transformer } = this.configs();
      for (const [part, config] of Object.entries({ text_encoder: clip, text_encoder_2: t5, transformer })) {
        mkdirSync(join(folder, part), { recursive: true });
        writeFileSync(join(folder, part, 'config.json'), JSON.stringify(config));
      }
    },
    edit: {
      ...FIELD_EDIT,
      prompt: allInOne.arguments.prompt,
      seed: allInOne.arguments.seeds[0],
      size: { width: 64, height: 48 },
    },
    picture: (size) => opaque(readSafetensors(ALL_IN_ONE).get('out.image_uint8')!.data, size),
    expected() {
      const steps = floatTensor(readSafetensors(ALL_IN_ONE), 'mid.latents_after_step');
      return steps.slice(-(64 / 16) * (48 / 16) * 64);
    },
    configs() {
      const { clip, t5, transformer } = allInOne.config;
      const pipeline = pipelineConfigs();
      return {
        clip: { ...pipeline.clip, num_attention_heads: clip.heads },
        t5: { ...pipeline.t5, num_heads: t5.heads, d_kv: t5.d_kv },
        transformer: { ...pipeline.transformer, axes_dims_rope: transformer.axes_dims_rope },
      };
    },
  },
];

/** The largest difference from the reference's latents; all of these agree within {@link FIELD_BOUND}. */
export const worstOf = (latents: ArrayLike<number>, expected: Float32Array): number => {
  let worst = latents.length === expected.length ? 0 : Number.POSITIVE_INFINITY;
  for (const [i, value] of expected.entries()) worst = Math.max(worst, Math.abs(value - latents[i]!));
  return worst;
};
export const FIELD_BOUND = 1e-3;

/** Relative L2 distance, for what rounds on its way. */
export const distanceOf = (latents: ArrayLike<number>, expected: Float32Array): number => {
  let [difference, norm] = [0, 0];
  for (const [i, value] of expected.entries()) {
    difference += (value - latents[i]!) ** 2;
    norm += value ** 2;
  }
  return Math.sqrt(difference / norm);
};
