// Reference cases of the transformer: the modulation program and one velocity evaluation, in both checkpoints' naming.

import type { Component } from '../../kernels-codegen/src/compile.ts';
import type { FluxSpec, PatchGrid } from '../../kernels-codegen/src/models/flux.ts';
import { columns, type Expectation, fixtureMeta, fixturePath, type ReferenceCase, sample } from './cases.ts';
import { readSafetensors, type TestTensor } from './safetensors.ts';

/** [fixture, file, sample] of every stored transformer evaluation. */
export const TRANSFORMERS: [fixture: string, file: string, index: number][] = [
  ['transformer-bfl-small', 'io.safetensors', 0],
  ['transformer-bfl-small', 'io.safetensors', 1],
  ['transformer-bfl-small', 'io_t2i.safetensors', 0],
  ['transformer-bfl-headdim128', 'io.safetensors', 0],
  ['transformer-bfl-noguidance', 'io.safetensors', 0],
  ['transformer-diffusers-small', 'io.safetensors', 0],
  ['transformer-diffusers-small', 'io.safetensors', 1],
  ['transformer-diffusers-small', 'io_t2i.safetensors', 0],
];

/** The BFL fixture with the configuration and the inputs of a fixture under diffusers names. */
const bflOf = (fixture: string): string => fixture.replace('-diffusers-', '-bfl-');

type Tensors = Map<string, TestTensor>;
const ioOf = (fixture: string, file: string): Tensors => readSafetensors(fixturePath(`${fixture}/${file}`));

export function fluxSpec(fixture: string): FluxSpec {
  const c = fixtureMeta(bflOf(fixture)).config;
  return {
    inChannels: c.in_channels,
    outChannels: c.out_channels,
    hidden: c.hidden_size,
    heads: c.num_heads,
    doubleBlocks: c.depth,
    singleBlocks: c.depth_single_blocks,
    mlpRatio: c.mlp_ratio,
    textWidth: c.context_in_dim,
    pooledWidth: c.vec_in_dim,
    axes: c.axes_dim,
    theta: c.theta,
    guidance: c.guidance_embed,
    qkvBias: c.qkv_bias,
  };
}

export interface FluxShape {
  textTokens: number;
  image: PatchGrid;
  references: PatchGrid[];
}

export function fluxShape(fixture: string, file: string): FluxShape {
  const cases = Object.values(fixtureMeta(bflOf(fixture)).cases as Record<string, FluxCase>);
  const shape = cases.find((c) => (c.file ?? 'io.safetensors') === file)!;
  const grid = ([height, width]: [number, number]): PatchGrid => ({ height, width });
  return {
    textTokens: ioOf(bflOf(fixture), file).get('in.txt')!.shape[1]!,
    image: grid(shape.target_patches_rows_cols),
    references: shape.context_patches_rows_cols ? [grid(shape.context_patches_rows_cols)] : [],
  };
}

interface FluxCase {
  file?: string;
  target_patches_rows_cols: [number, number];
  context_patches_rows_cols: [number, number] | null;
}

/** The modulation program of a transformer fixture: inputs as the reference embedded them. */
export function modulationCase(fixture: string, file: string, index: number): ReferenceCase {
  const spec = fluxSpec(fixture);
  const io = ioOf(fixture, file);
  const given = ioOf(bflOf(fixture), file);
  const inputs: Record<string, Float32Array> = {
    timesteps: sample(given, 'mid.timestep_embedding', index),
    pooled: sample(given, 'in.y', index),
  };
  if (spec.guidance) inputs.guidance = sample(given, 'mid.guidance_embedding', index);
  const expected = [...io.keys()].flatMap((reference): Expectation[] => {
    const label = MODULATION[reference] ?? /^mid\.(.*(?:_mod|modulation)\.lin)\.out$/.exec(reference)?.[1];
    return label ? [{ reference, label, values: sample(io, reference, index) }] : [];
  });
  const request: Component = { component: 'modulation', spec, steps: 1 };
  return { name: `${fixture}/${file}#${index} modulation`, fixture, request, inputs, expected };
}

const MODULATION: Record<string, string> = {
  'mid.time_in': 'time_in.out_layer',
  'mid.vector_in': 'vector_in.out_layer',
  'mid.guidance_in': 'guidance_in.out_layer',
  'mid.vec': 'vec',
  'mid.temb': 'vec',
  'mid.final_layer.adaLN_modulation': 'final_layer.adaLN_modulation.1',
};

/** A velocity evaluation. `modulation` must be added to the inputs: the row that {@link modulationCase} yields. */
export function denoiseCase(fixture: string, file: string, index: number): ReferenceCase {
  const spec = fluxSpec(fixture);
  const io = ioOf(fixture, file);
  const given = ioOf(bflOf(fixture), file);
  const shape = fluxShape(fixture, file);
  const target = shape.image.height * shape.image.width;
  const rope = ropeOf(sample(given, 'mid.pe', index));
  const inputs: Record<string, Float32Array> = {
    latents: sample(given, 'in.img', index).slice(0, target * spec.inChannels),
    text: sample(given, 'in.txt', index),
    rope,
  };
  if (shape.references.length) inputs.references = sample(given, 'in.img', index).slice(target * spec.inChannels);
  const expected = [...io.keys()].flatMap((reference) => {
    const stored = sample(io, reference, index);
    return expectation(reference, stored, { spec, text: shape.textTokens, target, rope });
  });
  const request: Component = { component: 'denoise', spec, ...shape };
  return { name: `${fixture}/${file}#${index} denoise`, fixture, request, inputs, expected };
}

interface Context {
  spec: FluxSpec;
  text: number;
  target: number;
  rope: Float32Array;
}

/** Where our graph has a stored value: none, one, or two places. */
function expectation(reference: string, values: Float32Array, { spec, text, target, rope }: Context): Expectation[] {
  const { hidden, outChannels, mlpRatio } = spec;
  const at = (label: string, pick?: Expectation['pick']): Expectation[] => [{ reference, label, values, pick }];
  const textRows = (ours: Float32Array): Float32Array => ours.subarray(0, text * hidden);
  const imageRows = (ours: Float32Array): Float32Array => ours.subarray(text * hidden, text * hidden + values.length);
  // Our last layers leave the reference pictures out: nobody reads their velocity.
  const targetRows = (label: string, width: number): Expectation[] => [
    { reference, label, values: values.slice(0, target * width) },
  ];
  if (reference === 'out.output') return targetRows('velocity', outChannels);
  if (reference === 'mid.final_layer.norm_final') return targetRows('final_layer.norm unmodulated', hidden);
  if (reference === 'mid.norm_out') return targetRows('final_layer.norm', hidden);

  const name = /^mid\.(.*)$/.exec(reference)?.[1] ?? '';
  if (/^(img_in|txt_in|double_blocks\.\d+\.(img|txt)|single_blocks\.\d+)$/.test(name)) return at(name);
  // Diffusers' blocks, whose single ones hand out text and image apart.
  const [, kind, number, stream] = /^(single_)?transformer_blocks\.(\d+)\.(encoder_)?hidden_states$/.exec(name) ?? [];
  if (number && kind) return at(`single_blocks.${number}`, stream ? textRows : imageRows);
  if (number) return at(`double_blocks.${number}.${stream ? 'txt' : 'img'}`);

  const [, block, inner] = /^((?:double|single)_blocks\.\d+)\.(.*)$/.exec(name) ?? [];
  if (!block || !inner) return [];
  const renamed = INNER[inner];
  if (renamed) return at(`${block}.${renamed}`);
  const normed = block.startsWith('double') ? `${block}.qkv` : `${block}.norm`;
  const head = (part: number, turned?: Float32Array): Expectation[] =>
    at(normed, (ours) => headsOf(columns(3 * hidden, part * hidden, hidden)(ours), spec, turned));
  switch (inner) {
    case 'attention.q_rope':
      return head(0);
    case 'attention.k_rope':
      return head(1);
    // One kernel norms and rotates, so the value between has no place in memory; turned back, ours must be it.
    case 'attention.q_normed':
      return head(0, rope);
    case 'attention.k_normed':
      return head(1, rope);
    case 'attention.v':
      return head(2);
    case 'txt_attn.proj.in':
      return at(`${block}.attention`, textRows);
    case 'img_attn.proj.in':
      return at(`${block}.attention`, imageRows);
    case 'linear1.out':
      return split(
        reference,
        values,
        [`${block}.linear1.qkv`, 3 * hidden],
        [`${block}.linear1.mlp`, mlpRatio * hidden],
      );
    case 'linear2.in':
      return split(reference, values, [`${block}.attention`, hidden], [`${block}.mlp_act`, mlpRatio * hidden]);
    default:
      return [];
  }
}

/** Two of our matrices that the reference has side by side. */
function split(reference: string, values: Float32Array, ...parts: [label: string, width: number][]): Expectation[] {
  const width = parts.reduce((sum, [, w]) => sum + w, 0);
  let first = 0;
  return parts.map(([label, w]) => {
    const part = columns(width, first, w)(values);
    first += w;
    return { reference, label, values: part };
  });
}

/** Reference names of values inside a block to our labels. */
const INNER: Record<string, string> = {
  'attention.attn': 'attention',
  'img_attn.qkv.out': 'img_attn.qkv',
  'txt_attn.qkv.out': 'txt_attn.qkv',
  'img_mlp.in': 'img_norm2',
  'txt_mlp.in': 'txt_norm2',
  'img_attn.proj.out': 'img_attn.proj',
  'txt_attn.proj.out': 'txt_attn.proj',
  'img_mlp.out': 'img_mlp.2',
  'txt_mlp.out': 'txt_mlp.2',
  'linear1.in': 'pre_norm',
  'linear2.out': 'linear2',
};

/** `[tokens, heads · size]` to the reference's `[heads, tokens, size]`; with `rope`, pairs turned back by its angles. */
function headsOf(x: Float32Array, { hidden, heads }: FluxSpec, rope?: Float32Array): Float32Array {
  const size = hidden / heads;
  const tokens = Math.floor(x.length / hidden);
  const out = new Float32Array(tokens * hidden);
  for (let h = 0; h < heads; h++) {
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < size; i += 2) {
        const [a, b] = [x[t * hidden + h * size + i]!, x[t * hidden + h * size + i + 1]!];
        const [cos, sin] = rope ? [rope[t * size + i]!, rope[t * size + i + 1]!] : [1, 0];
        out[(h * tokens + t) * size + i] = a * cos + b * sin;
        out[(h * tokens + t) * size + i + 1] = b * cos - a * sin;
      }
    }
  }
  return out;
}

/** `[tokens, size/2, 2, 2]` rotation matrices to our `[tokens, size]` table of (cos, sin). */
export function ropeOf(pe: Float32Array): Float32Array {
  return Float32Array.from({ length: pe.length / 2 }, (_, i) => pe[(i >> 1) * 4 + (i & 1 ? 2 : 0)]!);
}
