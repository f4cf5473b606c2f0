// The catalogue of reference cases: a component, its inputs, and what the reference implementation computed.
// One list serves the CPU oracle (are the models right?) and every GPU tier (are the kernels right?).

import { readFileSync } from 'node:fs';
import type { Component } from '../../kernels-codegen/src/compile.ts';
import type { VaeSpec } from '../../kernels-codegen/src/models/autoencoder.ts';
import type { FluxSpec } from '../../kernels-codegen/src/models/flux.ts';
import { clipSpecFromConfig, t5SpecFromConfig } from '../../kernels-codegen/src/models/specs.ts';
import { floatTensor, readSafetensors, type TestTensor } from './safetensors.ts';

export interface ReferenceCase {
  name: string;
  /** Folder of the weights, BFL or original names. */
  fixture: string;
  request: Component;
  inputs: Record<string, Float32Array>;
  /** By port or node label: the reference's values, `[rows, cols]` row-major. */
  expected: Record<string, Float32Array>;
  /** Labels among `expected` that are intermediates. */
  taps: string[];
  /** Compare only the first rows of every expected matrix. */
  validRows?: number;
}

const root = new URL('../fixtures/', import.meta.url);
export const fixturePath = (name: string): URL => new URL(`${name}`, root);
export const fixtureMeta = (fixture: string) => JSON.parse(readFileSync(fixturePath(`${fixture}/meta.json`), 'utf8'));

/** Tensor `name` of sample `index` along its first axis. */
function sample(tensors: Map<string, TestTensor>, name: string, index: number): Float32Array {
  const data = floatTensor(tensors, name);
  const batch = tensors.get(name)!.shape[0]!;
  const size = data.length / batch;
  return data.slice(index * size, (index + 1) * size);
}

export function fluxSpec(fixture: string): FluxSpec {
  const c = fixtureMeta(fixture).config;
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

/** The modulation program of a transformer fixture: inputs as the reference embedded them. */
export function modulationCase(fixture: string, file: string, index: number): ReferenceCase {
  const spec = fluxSpec(fixture);
  const io = readSafetensors(fixturePath(`${fixture}/${file}`));
  const inputs: Record<string, Float32Array> = {
    timesteps: sample(io, 'mid.timestep_embedding', index),
    pooled: sample(io, 'in.y', index),
  };
  if (spec.guidance) inputs.guidance = sample(io, 'mid.guidance_embedding', index);
  const expected: Record<string, Float32Array> = {};
  const names = { 'mid.time_in': 'time_in.out_layer', 'mid.vector_in': 'vector_in.out_layer', 'mid.vec': 'vec' };
  for (const [from, to] of Object.entries(names)) if (io.has(from)) expected[to] = sample(io, from, index);
  for (const name of io.keys()) {
    const layer = /^mid\.(.*\.lin)\.out$/.exec(name)?.[1];
    if (layer) expected[layer] = sample(io, name, index);
  }
  const taps = Object.keys(expected);
  const request: Component = { component: 'modulation', spec, steps: 1 };
  return { name: `${fixture}/${file}#${index} modulation`, fixture, request, inputs, expected, taps };
}

/** A velocity evaluation. `modulation` must be added to the inputs: the row that {@link modulationCase} yields. */
export function denoiseCase(fixture: string, file: string, index: number): ReferenceCase {
  const spec = fluxSpec(fixture);
  const meta = fixtureMeta(fixture);
  const io = readSafetensors(fixturePath(`${fixture}/${file}`));
  const shape = Object.values(meta.cases as Record<string, FluxCase>).find(
    (c) => (c.file ?? 'io.safetensors') === file,
  )!;
  const grid = ([height, width]: [number, number]) => ({ height, width });
  const references = shape.context_patches_rows_cols ? [grid(shape.context_patches_rows_cols)] : [];
  const image = grid(shape.target_patches_rows_cols);
  const target = image.height * image.width;
  const inputs: Record<string, Float32Array> = {
    latents: sample(io, 'in.img', index).slice(0, target * spec.inChannels),
    text: sample(io, 'in.txt', index),
    rope: ropeOf(sample(io, 'mid.pe', index)),
  };
  if (references.length) inputs.references = sample(io, 'in.img', index).slice(target * spec.inChannels);
  const expected: Record<string, Float32Array> = {
    velocity: sample(io, 'out.output', index).slice(0, target * spec.outChannels),
  };
  for (const name of io.keys()) {
    const label = /^mid\.((img|txt)_in|double_blocks\.\d+\.(img|txt)|single_blocks\.\d+)$/.exec(name)?.[1];
    if (label) expected[label] = sample(io, name, index);
    const renamed = INNER[name.replace(/^mid\.((?:double|single)_blocks\.\d+)\./, '')];
    const block = /^mid\.((?:double|single)_blocks\.\d+)\./.exec(name)?.[1];
    if (renamed && block) expected[`${block}.${renamed}`] = sample(io, name, index);
  }
  const taps = Object.keys(expected).filter((k) => k !== 'velocity');
  const request: Component = {
    component: 'denoise',
    spec,
    textTokens: io.get('in.txt')!.shape[1]!,
    image,
    references,
  };
  return { name: `${fixture}/${file}#${index} denoise`, fixture, request, inputs, expected, taps };
}

interface FluxCase {
  file?: string;
  target_patches_rows_cols: [number, number];
  context_patches_rows_cols: [number, number] | null;
}

/** Reference names of values inside a block to our labels. */
const INNER: Record<string, string> = {
  'attention.attn': 'attention',
  'img_mlp.in': 'img_norm2',
  'txt_mlp.in': 'txt_norm2',
  'img_attn.proj.out': 'img_attn.proj',
  'txt_attn.proj.out': 'txt_attn.proj',
  'img_mlp.out': 'img_mlp.2',
  'txt_mlp.out': 'txt_mlp.2',
  'linear1.in': 'pre_norm',
  'linear2.out': 'linear2',
};

/** `[tokens, size/2, 2, 2]` rotation matrices to our `[tokens, size]` table of (cos, sin). */
function ropeOf(pe: Float32Array): Float32Array {
  return Float32Array.from({ length: pe.length / 2 }, (_, i) => pe[(i >> 1) * 4 + (i & 1 ? 2 : 0)]!);
}

export function t5Cases(fixture: string): ReferenceCase[] {
  const spec = t5SpecFromConfig(fixtureMeta(fixture).config);
  const io = readSafetensors(fixturePath(`${fixture}/io.safetensors`));
  const table = floatTensor(readSafetensors(fixturePath(`${fixture}/weights.safetensors`)), 'shared.weight');
  const cases: ReferenceCase[] = [];
  for (const prefix of [...io.keys()].filter((k) => k.endsWith('.in.input_ids')).map((k) => k.split('.')[0]!)) {
    const [batch, tokens] = io.get(`${prefix}.in.input_ids`)!.shape as [number, number];
    const ids = io.get(`${prefix}.in.input_ids`)!.data;
    for (let index = 0; index < batch; index++) {
      const inputs = { embeddings: rowsOf(table, spec.width, ids.subarray(index * tokens, (index + 1) * tokens)) };
      const expected: Record<string, Float32Array> = { hidden: sample(io, `${prefix}.out.last_hidden_state`, index) };
      for (const name of io.keys()) {
        const block = name.startsWith(`${prefix}.mid.block.`) ? name.slice(`${prefix}.mid.`.length) : undefined;
        if (!block) continue;
        const label = block
          .replace('SelfAttention.o.in', 'SelfAttention')
          .replace('layer_norm.out', 'layer_norm')
          .replace('wo.in', 'gated');
        expected[`encoder.${label}`] = sample(io, name, index);
      }
      const taps = Object.keys(expected).filter((k) => k !== 'hidden');
      const name = `${fixture}/${prefix}#${index}`;
      cases.push({ name, fixture, request: { component: 't5', spec, tokens }, inputs, expected, taps });
      const masked = `${prefix}.out.last_hidden_state_masked`;
      if (!io.has(masked)) continue;
      const mask = io.get(`${prefix}.in.attention_mask`)!.data.subarray(index * tokens, (index + 1) * tokens);
      const validTokens = [...mask].reduce((a, b) => a + b, 0);
      cases.push({
        name: `${name} masked`,
        fixture,
        request: { component: 't5', spec, tokens, validTokens },
        inputs,
        expected: { hidden: sample(io, masked, index) },
        taps: [],
        validRows: validTokens,
      });
    }
  }
  return cases;
}

export function clipCases(fixture: string): ReferenceCase[] {
  const spec = clipSpecFromConfig(fixtureMeta(fixture).config);
  const io = readSafetensors(fixturePath(`${fixture}/io.safetensors`));
  const weights = readSafetensors(fixturePath(`${fixture}/weights.safetensors`));
  const table = floatTensor(weights, 'text_model.embeddings.token_embedding.weight');
  const [batch, tokens] = io.get('in.input_ids')!.shape as [number, number];
  return Array.from({ length: batch }, (_, index) => {
    const ids = io.get('in.input_ids')!.data.subarray(index * tokens, (index + 1) * tokens);
    const expected: Record<string, Float32Array> = { hidden: sample(io, 'out.last_hidden_state', index) };
    for (let i = 0; i < spec.layers; i++) {
      const name = `mid.hidden_states.${i + 1}`;
      if (io.has(name)) expected[`text_model.encoder.layers.${i}`] = sample(io, name, index);
    }
    const taps = Object.keys(expected).filter((k) => k !== 'hidden');
    const inputs = { embeddings: rowsOf(table, spec.width, ids) };
    return {
      name: `${fixture}#${index}`,
      fixture,
      request: { component: 'clip', spec, tokens },
      inputs,
      expected,
      taps,
    };
  });
}

export function vaeSpec(fixture = 'vae-bfl'): VaeSpec {
  const c = fixtureMeta(fixture).config;
  return {
    channels: c.ch_mult.map((m: number) => m * c.ch),
    blocks: c.num_res_blocks,
    latentChannels: c.z_channels,
    groups: 32,
    scale: c.scale_factor,
    shift: c.shift_factor,
  };
}

export function vaeCases(fixture = 'vae-bfl'): ReferenceCase[] {
  const spec = vaeSpec();
  const io = readSafetensors(fixturePath(`${fixture}/io.safetensors`));
  const sizes = [...new Set([...io.keys()].map((k) => k.split('.')[0]!).filter((k) => /^\d+x\d+$/.test(k)))];
  return sizes.flatMap((size): ReferenceCase[] => {
    const [height, width] = size.split('x').map(Number) as [number, number];
    /** NCHW to [pixels, channels], optionally padded with zero channels. */
    const pixels = (name: string, padTo = 0): Float32Array => {
      const [, channels, h, w] = io.get(`${size}.${name}`)!.shape as [number, number, number, number];
      const data = floatTensor(io, `${size}.${name}`);
      const cols = Math.max(channels, padTo);
      const out = new Float32Array(h * w * cols);
      for (let c = 0; c < channels; c++) for (let p = 0; p < h * w; p++) out[p * cols + c] = data[c * h * w + p]!;
      return out;
    };
    const taps = (side: 'encoder' | 'decoder'): Record<string, Float32Array> => {
      const prefix = `${size}.mid.${side}.`;
      const found = [...io.keys()].filter((k) => k.startsWith(prefix) && !k.endsWith('.input'));
      return Object.fromEntries(
        found.map((k) => [vaeLabel(k.slice(size.length + 5), spec), pixels(k.slice(size.length + 1))]),
      );
    };
    const common = { spec, height, width, packed: false } as const;
    const encoded = taps('encoder');
    const decoded = taps('decoder');
    const cases: ReferenceCase[] = [
      {
        name: `${fixture} ${size} encode`,
        fixture,
        request: { component: 'vae-encode', ...common, input: 'tensor' },
        inputs: { tensor: pixels('in.image', 4) },
        expected: { latents: pixels('out.latent'), ...encoded },
        taps: Object.keys(encoded),
      },
      {
        name: `${fixture} ${size} decode`,
        fixture,
        request: { component: 'vae-decode', ...common, output: 'tensor' },
        inputs: { latents: pixels('in.z') },
        expected: { tensor: pixels('out.decoded'), ...decoded },
        taps: Object.keys(decoded),
      },
    ];
    if (io.has(`${size}.in.sample_noise`)) {
      cases.push({
        name: `${fixture} ${size} encode sampled`,
        fixture,
        request: { component: 'vae-encode', ...common, input: 'tensor', sample: true },
        inputs: { tensor: pixels('in.image', 4), noise: pixels('in.sample_noise') },
        expected: { latents: pixels('out.latent_sampled') },
        taps: [],
      });
    }
    return cases;
  });
}

/** The reference's hook names to our labels. */
function vaeLabel(name: string, spec: VaeSpec): string {
  return name
    .replace(/(encoder\.down\.\d+)\.last_block/, `$1.block.${spec.blocks - 1}`)
    .replace(/(decoder\.up\.\d+)\.last_block/, `$1.block.${spec.blocks}`)
    .replace(/\.(downsample|upsample)$/, '.$1.conv');
}

function rowsOf(table: Float32Array, width: number, ids: ArrayLike<number>): Float32Array {
  const out = new Float32Array(ids.length * width);
  Array.from(ids).forEach((id, i) => {
    out.set(table.subarray(id * width, (id + 1) * width), i * width);
  });
  return out;
}

/** √(Σ(a−b)² / Σb²), and the worst element. */
export function errorOf(actual: ArrayLike<number>, expected: ArrayLike<number>): { relative: number; worst: number } {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, expected ${expected.length}`);
  let [difference, norm, worst] = [0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const d = actual[i]! - expected[i]!;
    if (Number.isNaN(d)) return { relative: Number.NaN, worst: Number.NaN };
    difference += d * d;
    norm += expected[i]! ** 2;
    worst = Math.max(worst, Math.abs(d));
  }
  return { relative: Math.sqrt(difference / norm), worst };
}
