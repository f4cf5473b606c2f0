// What people give in a model's place, each as a tiny file: named with what it is, what is needed, and an example.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KontextError } from '../../../runtime/src/errors.ts';
import { type BflFiles, openModel } from '../../../sdk/src/model/open.ts';
import {
  gguf,
  namesOnly,
  rawTensors,
  safetensors,
  tiny,
  tinyBytes,
  tinyConfigFiles,
  tinyFile,
  writeFiles,
} from '../../support/model-files.ts';

let folder: string;
const at = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-refusals-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const text = (value: string) => new TextEncoder().encode(value);
const m = [2, 2];
/** A matrix with what a quantiser puts beside it. */
const quantised = (dtype: string, beside: Record<string, { dtype: string; shape: number[] }>, prefix = '') => {
  const file = rawTensors(namesOnly({ [`${prefix}double_blocks.0.img_attn.proj.weight`]: m }, dtype));
  for (const [name, { dtype: kind, shape }] of Object.entries(beside)) {
    const data = rawTensors(namesOnly({ x: shape }, kind)).get('x')!;
    file.set(`${prefix}double_blocks.0.img_attn.proj.${name}`, data);
  }
  return safetensors(file);
};

/** @returns the error of a model whose transformer is this file */
async function refusal(part: keyof typeof PARTS, name: string, data: Uint8Array): Promise<KontextError> {
  writeFiles(folder, { [name]: data });
  const files: BflFiles = { ...PARTS, [part]: at(name) };
  const error = await openModel(files).then(
    (model) => model.close(),
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(KontextError);
  return error as KontextError;
}

const PARTS = {
  transformer: tinyFile('transformer'),
  vae: tinyFile('vae'),
  clip: tinyFile('clip'),
  t5: tinyFile('t5'),
};

describe('named with what is needed instead', () => {
  it.each<[what: RegExp, file: Uint8Array]>([
    [
      /a LoRA \(an adapter for a model, not a model\)/,
      namesOnly({ 'transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight': m }),
    ],
    [/a LoRA/, namesOnly({ 'lora_unet_double_blocks_0_img_attn_proj.lora_down.weight': m })],
    [/a LoRA/, namesOnly({ 'lora_unet_double_blocks_0_img_attn_proj.hada_w1_a': m })],
    [/an XLabs LoRA/, namesOnly({ 'double_blocks.0.processor.qkv_lora1.down.weight': m })],
    [/a ControlNet/, namesOnly({ 'controlnet_x_embedder.weight': m, 'transformer_blocks.0.attn.to_q.weight': m })],
    [/an IP-Adapter/, namesOnly({ 'ip_adapter.0.to_k.weight': m })],
    [/FLUX\.1 Redux/, namesOnly({ 'redux_up.weight': m })],
    [/Chroma/, namesOnly({ 'distilled_guidance_layer.in_proj.weight': m, 'double_blocks.0.img_attn.proj.weight': m })],
    [/NF4/, quantised('U8', { 'weight.quant_state.bitsandbytes__nf4': { dtype: 'U8', shape: [3] } })],
    [/LLM\.int8/, quantised('I8', { SCB: { dtype: 'F32', shape: [2] } })],
    [
      /SVDQuant/,
      namesOnly({ 'transformer_blocks.0.qkv_proj.qweight': m, 'transformer_blocks.0.qkv_proj.wscales': m }, 'I8'),
    ],
    [
      /GPTQ/,
      namesOnly({ 'transformer_blocks.0.attn.to_q.qweight': m, 'transformer_blocks.0.attn.to_q.qzeros': m }, 'I32'),
    ],
    [
      /nvfp4/,
      quantised('U8', { weight_scale: { dtype: 'F8_E4M3', shape: m }, weight_scale_2: { dtype: 'F32', shape: [] } }),
    ],
    [/mxfp8/, quantised('F8_E4M3', { weight_scale: { dtype: 'U8', shape: m } })],
    [/mxfp8/, quantised('F8_E4M3', { weight_scale: { dtype: 'F8_E8M0', shape: m } }, 'model.diffusion_model.')],
    [/8-bit integers \(int8_tensorwise\)/, quantised('I8', { weight_scale: { dtype: 'F32', shape: [] } })],
    [
      /8-bit floats with scales for blocks/,
      quantised('F8_E4M3', { weight_scale_inv: { dtype: 'F32', shape: [1, 1] } }),
    ],
    [/8-bit floats with scales for blocks/, quantised('F8_E4M3', { scale: { dtype: 'F32', shape: [2, 1] } })],
    [/8-bit floats with scales for blocks/, quantised('F8_E5M2', { 'weight.scale': { dtype: 'BF16', shape: [2] } })],
    [/SDNQ/, quantised('U8', { zero_point: { dtype: 'F32', shape: [2] }, scale: { dtype: 'F32', shape: [2] } })],
    [/Model Optimizer/, quantised('F8_E4M3', { 'weight_quantizer._scale': { dtype: 'F32', shape: [] } })],
    [/torchao/, quantised('I8', { 'weight._data': { dtype: 'I8', shape: m } })],
    [
      /Stable Diffusion XL/,
      namesOnly({
        'model.diffusion_model.label_emb.0.0.weight': m,
        'model.diffusion_model.input_blocks.0.0.weight': m,
      }),
    ],
    [
      /Stable Diffusion XL/,
      namesOnly({ 'add_embedding.linear_1.weight': m, 'down_blocks.1.attentions.0.norm.weight': m }),
    ],
    [/Stable Diffusion 1 or 2/, namesOnly({ 'model.diffusion_model.input_blocks.0.0.weight': m })],
    [/Stable Diffusion 3/, namesOnly({ 'model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight': m })],
    [
      /Stable Diffusion 3/,
      namesOnly({
        'pos_embed.proj.weight': m,
        'context_embedder.weight': m,
        'transformer_blocks.0.attn.to_q.weight': m,
      }),
    ],
    [/FLUX\.2/, namesOnly({ 'double_stream_modulation_img.lin.weight': m, 'double_blocks.0.img_attn.proj.weight': m })],
    [/FLUX\.2/, namesOnly({ 'single_stream_modulation.linear.weight': m, 'transformer_blocks.0.attn.to_q.weight': m })],
    [
      /Qwen-Image/,
      namesOnly({
        'txt_norm.weight': [2],
        'transformer_blocks.0.img_mlp.net.0.proj.weight': m,
        'transformer_blocks.0.attn.to_q.weight': m,
      }),
    ],
    [/HunyuanVideo/, namesOnly({ 'double_blocks.0.img_attn_qkv.weight': m })],
    [/Z-Image/, namesOnly({ 'noise_refiner.0.attention.qkv.weight': m })],
    [/Wan/, namesOnly({ 'blocks.0.cross_attn.q.weight': m })],
    [/HiDream/, namesOnly({ 'double_stream_blocks.0.block.attn1.to_q.weight': m })],
    [/an upscaler/, namesOnly({ 'model.0.weight': m, 'model.1.sub.0.RDB1.conv1.0.weight': m })],
    [/an autoencoder\. What/, tinyBytes('vae')],
    [/a T5 encoder\. What/, tinyBytes('t5')],
    [/a CLIP text encoder\. What/, tinyBytes('clip')],
    [/a file of 1 tensors of an unknown model \("x"\)/, namesOnly({ x: m })],
    [/a file without tensors/, namesOnly({})],
    [
      /Stable Diffusion XL/,
      gguf(rawTensors(namesOnly({ 'label_emb.0.0.weight': m, 'input_blocks.0.0.weight': m })), {
        'general.architecture': 'sdxl',
      }),
    ],
  ])('as transformer: %s', async (what, data) => {
    const error = await refusal('transformer', 'given.safetensors', data);
    expect(error.code).toBe('weights-invalid');
    expect(error.message).toMatch(what);
    expect(error.message).toMatch(
      /given\.safetensors is .*What is needed as the transformer is the transformer of FLUX\.1 Kontext \[dev\], for example flux1-kontext-dev\.safetensors\./,
    );
    // The same where it lies in a folder.
    writeFiles(folder, {
      ...tinyConfigFiles(),
      'ae.safetensors': tinyBytes('vae'),
      'clip_l.safetensors': tinyBytes('clip'),
      't5xxl.safetensors': tinyBytes('t5'),
    });
    for (const source of [folder, at('given.safetensors')]) {
      await expect(openModel(source)).rejects.toThrow(/given\.safetensors is (?!no model)|has no transformer/);
    }
  });

  it.each<[part: keyof typeof PARTS, what: RegExp, file: Uint8Array]>([
    [
      'vae',
      /Stable Diffusion \(4 channels\)/,
      namesOnly({ 'decoder.conv_in.weight': [512, 4, 3, 3], 'decoder.mid.attn_1.q.weight': [2, 2, 1, 1] }),
    ],
    [
      'vae',
      /FLUX\.2 \(32 channels\)/,
      namesOnly({ 'decoder.conv_in.weight': [512, 32, 3, 3], 'decoder.mid.attn_1.q.weight': [2, 2, 1, 1] }),
    ],
    [
      'vae',
      /the autoencoder of a video model/,
      namesOnly({ 'decoder.conv_in.weight': [2, 16, 3, 3, 3], 'decoder.mid.attn_1.q.weight': [2, 2, 1, 1] }),
    ],
    [
      'vae',
      /a small decoder for previews \(TAESD\).*Give it as previewDecoder/,
      namesOnly({ 'decoder.layers.0.weight': m }),
    ],
    ['clip', /a T5 encoder/, tinyBytes('t5')],
    ['t5', /a CLIP text encoder/, tinyBytes('clip')],
    [
      'clip',
      /another CLIP text encoder \(of Stable Diffusion XL or 2\)/,
      namesOnly({
        'text_model.encoder.layers.0.self_attn.q_proj.weight': m,
        'text_model.embeddings.token_embedding.weight': [2, 1280],
      }),
    ],
    ['clip', /an OpenCLIP text encoder/, namesOnly({ 'transformer.resblocks.0.attn.in_proj_weight': m })],
    ['clip', /encoder of pictures/, namesOnly({ 'vision_model.encoder.layers.0.self_attn.q_proj.weight': m })],
    [
      't5',
      /a UMT5 encoder \(of Wan\)/,
      namesOnly({ 'shared.weight': [256384, 1], 'encoder.block.0.layer.0.SelfAttention.q.weight': m }, 'F8_E4M3'),
    ],
    ['t5', /a language model/, namesOnly({ 'model.layers.0.self_attn.q_proj.weight': m })],
    [
      't5',
      /a language model/,
      gguf(rawTensors(namesOnly({ 'blk.0.attn_q.weight': m })), { 'general.architecture': 'llama' }),
    ],
  ])('as %s: %s', async (part, what, data) => {
    const error = await refusal(part, 'given.safetensors', data);
    expect(error.message).toMatch(what);
    expect(error.message).toMatch(/What is needed as the .* is .*, for example /);
    expect(error.details).toMatchObject({ part });
  });
});

describe('no weights at all', () => {
  it.each<[what: RegExp, file: Uint8Array]>([
    [/is a Git LFS pointer.*git lfs pull/, text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')],
    [/is a web page/, text('\n  <!DOCTYPE html><html><title>Sign in</title></html>')],
    [/is a web page/, text('<html lang="en"><body>Access denied</body></html>')],
    [/is empty/, new Uint8Array(0)],
    [/is a JSON text, not weights/, text('{"error":"Access to this model is restricted"}')],
    [/is a PyTorch pickle.*never opened/, Uint8Array.of(0x80, 2, 0x8a, 10, 0x6c)],
    [/is a zip archive, as PyTorch writes/, text('PK\u0003\u0004 archive/data.pkl')],
    [/is an ONNX model/, Uint8Array.of(8, 7, 0x12, 7, ...text('pytorch'), 0x1a, 5)],
    [/neither a safetensors nor a GGUF file/, text('Access to this model is restricted')],
    [/too few for a header|neither a safetensors/, Uint8Array.of(1, 2, 3)],
    [/its header would be .* bytes long|truncated/, tinyBytes('transformer').subarray(0, 100)],
    [/truncated.*Download it again/, tinyBytes('transformer').subarray(0, 400_000)],
    [/truncated.*Download it again/, gguf(tiny('transformer')).subarray(0, 400_000)],
    [/version 1; convert it again/, Uint8Array.of(...text('GGUF'), 1, 0, 0, 0, ...new Uint8Array(20))],
    [/big-endian/, Uint8Array.of(...text('GGUF'), 0, 0, 0, 3, ...new Uint8Array(20))],
  ])('%s', async (what, data) => {
    for (const name of ['flux1-kontext-dev.safetensors', 'flux1-kontext-dev.gguf']) {
      const error = await refusal('transformer', name, data);
      expect(error.code).toBe('weights-invalid');
      expect(error.message).toMatch(what);
      expect(error.message).toContain(name);
      writeFiles(folder, {
        'ae.safetensors': tinyBytes('vae'),
        'clip_l.safetensors': tinyBytes('clip'),
        't5xxl.safetensors': tinyBytes('t5'),
      });
      await expect(openModel(folder)).rejects.toThrow(what);
      await expect(openModel(at(name))).rejects.toThrow(what);
      rmSync(at(name));
    }
  });

  it('kinds that are never opened, by their names', async () => {
    writeFiles(folder, { 'flux.ckpt': 'x', 'ae.pt': 'x', 'model.onnx': 'x' });
    await expect(openModel(folder)).rejects.toThrow(
      /no \.safetensors and no \.gguf file \(.*flux\.ckpt.*never opened here\)/,
    );
    await expect(openModel(at('flux.ckpt'))).rejects.toThrow(/neither a safetensors nor a GGUF/);
    await expect(openModel(at('none.safetensors'))).rejects.toThrow(/There is no model at .*none\.safetensors/);
  });
});
