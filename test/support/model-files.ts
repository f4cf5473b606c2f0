// Model files in other forms, made from the small fixtures: tensors renamed, left out, joined by others; safetensors, GGUF, shards.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ggufBytes } from './gguf.ts';
import { pipelineFile } from './pipeline-model.ts';

/** A tensor as its file holds it. */
export interface RawTensor {
  dtype: string;
  shape: number[];
  data: Uint8Array;
}
export type RawTensors = Map<string, RawTensor>;

const root = new URL('../fixtures/', import.meta.url).pathname;
const FILES = {
  transformer: join(root, 'field/base/flux1-kontext-dev.safetensors'),
  vae: pipelineFile('model/vae/diffusion_pytorch_model.safetensors'),
  clip: pipelineFile('model/text_encoder/model.safetensors'),
  t5: pipelineFile('model/text_encoder_2/model.safetensors'),
} as const;
const CONFIGS = { vae: 'vae', clip: 'text_encoder', t5: 'text_encoder_2' } as const;
export type TinyPart = keyof typeof FILES;

/** The file of one network of the tiny model; BFL's names, diffusers' for the autoencoder, transformers' for the encoders. */
export const tinyFile = (part: TinyPart): string => FILES[part];
export const tinyBytes = (part: TinyPart): Buffer => readFileSync(FILES[part]);
/** Its config, where its shapes do not say everything. */
export const tinyConfig = (part: keyof typeof CONFIGS): Record<string, unknown> =>
  JSON.parse(readFileSync(pipelineFile(`model/${CONFIGS[part]}/config.json`), 'utf8'));

export function rawTensors(file: Uint8Array): RawTensors {
  const view = new DataView(file.buffer, file.byteOffset);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length))) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [start, end],
          },
        ]) => [name, { dtype, shape, data: file.subarray(8 + length + start, 8 + length + end) }],
      ),
  );
}

export const tiny = (part: TinyPart): RawTensors => rawTensors(tinyBytes(part));

export const renamedTensors = (tensors: RawTensors, rename: (name: string) => string | undefined): RawTensors =>
  new Map(
    [...tensors].flatMap(([name, tensor]) => {
      const other = rename(name);
      return other === undefined ? [] : [[other, tensor] as const];
    }),
  );

export function safetensors(tensors: RawTensors, metadata?: Record<string, string>): Uint8Array<ArrayBuffer> {
  let offset = 0;
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.length] };
    offset += data.length;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let at = 8 + text.length;
  for (const { data } of tensors.values()) {
    file.set(data, at);
    at += data.length;
  }
  return file;
}

/** A safetensors file of nothing but names and shapes; the values are zeros of `dtype`. */
export function namesOnly(shapes: Record<string, number[]>, dtype = 'F16', metadata?: Record<string, string>) {
  const size = { F32: 4, I32: 4, F16: 2, BF16: 2 }[dtype] ?? 1;
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const data = new Uint8Array(size * shape.reduce((product, n) => product * n, 1));
    return [name, { dtype, shape, data }] as const;
  });
  return safetensors(new Map(tensors), metadata);
}

const GGML: Readonly<Record<string, number>> = { F32: 0, F16: 1, BF16: 30 };

/** The same tensors as GGUF; plain floats keep their type. */
export const gguf = (tensors: RawTensors, metadata: Record<string, string | number> = {}): Uint8Array<ArrayBuffer> =>
  ggufBytes(
    [...tensors].map(([name, { dtype, shape, data }]) => ({ name, shape, type: GGML[dtype]!, data })),
    { metadata },
  );

/** `count` parts of about the same number of tensors. */
export function split(tensors: RawTensors, count: number): RawTensors[] {
  const list = [...tensors];
  const each = Math.ceil(list.length / count);
  return Array.from({ length: count }, (_, i) => new Map(list.slice(i * each, (i + 1) * each)));
}

/** Writes files below `folder`, their folders too. */
export function writeFiles(folder: string, files: Record<string, Uint8Array | string>): void {
  for (const [name, data] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), data);
  }
}

/** The tiny model's configs under diffusers' names, which a model of such widths needs wherever its weights lie. */
export const tinyConfigFiles = (): Record<string, string> => ({
  'text_encoder/config.json': JSON.stringify(tinyConfig('clip')),
  'text_encoder_2/config.json': JSON.stringify(tinyConfig('t5')),
});

/** T5 under llama.cpp's names. */
export const llamaName = (name: string): string =>
  name
    .replace(/^shared\./, 'token_embd.')
    .replace('encoder.final_layer_norm.', 'enc.output_norm.')
    .replace(/^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\./, 'enc.blk.$1.attn_$2.')
    .replace(/^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\./, 'enc.blk.$1.attn_rel_b.')
    .replace(/^encoder\.block\.(\d+)\.layer\.0\.layer_norm\./, 'enc.blk.$1.attn_norm.')
    .replace(/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\./, 'enc.blk.$1.ffn_gate.')
    .replace(/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\./, 'enc.blk.$1.ffn_up.')
    .replace(/^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\./, 'enc.blk.$1.ffn_down.')
    .replace(/^encoder\.block\.(\d+)\.layer\.1\.layer_norm\./, 'enc.blk.$1.ffn_norm.');
