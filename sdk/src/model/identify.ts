// What model a file of weights holds, from its tensors' names and shapes: the rules are data, first match wins.
// Its answer goes into messages ("this is X; needed is Y, for example Z") and tells which variant of FLUX a transformer is.
import type { NetworkName } from '../../../runtime/src/weights/naming/parts.ts';
import { findNetworks } from '../../../runtime/src/weights/naming/parts.ts';
import type { SourceTensor, WeightSource } from '../../../runtime/src/weights/source.ts';

/** Kinds that the transformer of a FLUX.1 file can be, by its input: Kontext, dev, schnell and Krea have one shape. */
export type FluxVariant = 'plain' | 'fill' | 'control';

/** What a file of weights is. */
export interface Identity {
  /** Short and stable. */
  kind: string;
  /** A phrase with its article: "a LoRA (an adapter, not a model)". */
  what: string;
  /** What can be done with it, or instead of it. */
  advice?: string;
  /** Nothing in the file can be used as a part of a model. */
  unusable?: true;
  /** Networks in it that are FLUX's. */
  networks: NetworkName[];
  /** With a transformer. */
  variant?: FluxVariant;
}

interface Rule {
  kind: string;
  what: string;
  advice?: string;
  /** Networks in such a file are no use: packed values, or another model's. */
  unusable: boolean;
  test(file: Facts): boolean;
}

interface Facts {
  /** A tensor whose name fits. */
  has(pattern: RegExp): boolean;
  /** The first tensor whose name fits. */
  tensor(pattern: RegExp): SourceTensor | undefined;
  metadata: Readonly<Record<string, string>>;
  /** A matrix of 8-bit floats with scales beside it in a spelling that is not known: read without them, its values would be wrong. */
  unknownScale(): boolean;
}

const FORMATS_THAT_OPEN = 'Use the 16-bit file, an fp8 one, or a GGUF';

const packed = (kind: string, what: string, test: Rule['test']): Rule => ({
  kind,
  what,
  advice: `Its packed weights are not supported. ${FORMATS_THAT_OPEN}`,
  unusable: true,
  test,
});
const other = (kind: string, what: string, test: Rule['test'], advice?: string): Rule => ({
  kind,
  what,
  unusable: true,
  test,
  ...(advice !== undefined && { advice }),
});

/** Formats first, because packed files have the names of their model; then adapters; then other models. */
const RULES: readonly Rule[] = [
  packed('nf4', 'a model in bitsandbytes’ NF4 (4 bits)', (f) => f.has(/\.quant_state\.bitsandbytes__(nf4|fp4)$/)),
  packed('bitsandbytes-int8', 'a model in bitsandbytes’ LLM.int8()', (f) => f.has(/\.SCB$/)),
  packed(
    'svdquant',
    'a model in SVDQuant’s format (nunchaku, 4 bits)',
    (f) =>
      (f.has(/\.qweight$/) && f.has(/\.(smooth_factor|wscales|wtscale)$/)) ||
      /svdquant/i.test(f.metadata.quantization_config ?? ''),
  ),
  packed('gptq', 'a model in GPTQ’s or AWQ’s format (4 bits)', (f) => f.has(/\.qweight$/) && f.has(/\.qzeros$/)),
  packed(
    'nvfp4',
    'a model in nvfp4 (4-bit floats for Blackwell GPUs)',
    (f) => f.has(/\.weight_scale_2$/) || f.tensor(/\.weight$/)?.dtype === 'nvfp4',
  ),
  packed('mxfp8', 'a model in mxfp8 (8-bit floats with a scale for 32 values)', (f) => {
    const scale = f.tensor(/\.weight_scale$/);
    return scale !== undefined && scale.shape.length === 2 && /^(U8|F8_E8M0)$/.test(scale.dtype);
  }),
  packed(
    'int8',
    'a model in 8-bit integers (int8_tensorwise)',
    (f) =>
      f.has(/\.(weight_scale|scale_weight)$/) &&
      f.tensor(/\.(qkv|proj|to_q|linear1|img_mlp\.0|q)\.weight$/)?.dtype === 'I8',
  ),
  packed('torchao', 'a model in torchao’s or quanto’s packed format', (f) =>
    f.has(/\.(_data|_packed_weight|int_data|weight_qdata|weight_int8_data)$/),
  ),
  packed('modelopt', 'a model in TensorRT Model Optimizer’s format', (f) =>
    f.has(/\.weight_quantizer\._(amax|scale|double_scale)$/),
  ),
  packed('sdnq', 'a model in SDNQ’s format', (f) => f.has(/\.(zero_point|svd_up)$/)),
  packed('hqq', 'a model in HQQ’s format', (f) => f.has(/\.W_q$/)),
  packed('fp8-blocks', 'a model in 8-bit floats with scales for blocks, or in a spelling that is not known', (f) =>
    f.unknownScale(),
  ),
  other(
    'lora',
    'a LoRA (an adapter for a model, not a model)',
    (f) => f.has(/(^|[._])(lora_[AB]|lora_down|lora_up|lora\.down|lora\.up|hada_w\d|lokr_w\d|oft_diag|dora_scale)/),
    'Give the model itself, and the LoRA beside it',
  ),
  other(
    'lora',
    'an XLabs LoRA (an adapter for a model, not a model)',
    (f) => f.has(/\.processor\.(qkv|proj)_lora\d?\./),
    'Give the model itself, and the LoRA beside it',
  ),
  other('controlnet', 'a ControlNet', (f) =>
    f.has(/(^|\.)(controlnet_|control_model\.|input_hint_block|controlnet_x_embedder|pos_embed_input)/),
  ),
  other('ip-adapter', 'an IP-Adapter', (f) => f.has(/(^|\.)(ip_adapter|image_proj|ip_adapter_proj_model)/)),
  other('redux', 'FLUX.1 Redux, an encoder of pictures', (f) => f.has(/^redux_(up|down)\./)),
  other('chroma', 'Chroma, a model made from FLUX.1 without its modulation', (f) =>
    f.has(/(^|\.)distilled_guidance_layer\./),
  ),
  other('flux2', 'FLUX.2', (f) => f.has(/(^|\.)(double_stream_modulation_img|single_stream_modulation)\b/)),
  other(
    'sd3',
    'Stable Diffusion 3',
    (f) =>
      f.has(/(^|\.)joint_blocks\.0\./) || (f.has(/^pos_embed\.proj\.weight$/) && f.has(/^context_embedder\.weight$/)),
  ),
  other(
    'sdxl',
    'Stable Diffusion XL',
    (f) =>
      f.has(/(^|\.)(label_emb\.0\.0\.weight|add_embedding\.linear_1\.weight)$/) ||
      f.has(/^conditioner\.embedders\.1\./),
  ),
  other('sd1', 'Stable Diffusion 1 or 2', (f) => f.has(/(^|\.)(input_blocks\.\d+\.|down_blocks\.\d+\.attentions\.)/)),
  other(
    'qwen-image',
    'Qwen-Image',
    (f) => f.has(/(^|\.)txt_norm\.weight$/) && f.has(/(^|\.)transformer_blocks\.0\.img_mlp\./),
  ),
  other('hunyuan', 'HunyuanVideo or HunyuanImage', (f) => f.has(/(^|\.)double_blocks\.0\.img_attn_qkv\./)),
  other('z-image', 'Lumina or Z-Image', (f) => f.has(/(^|\.)(noise_refiner|context_refiner)\.0\./)),
  other('wan', 'Wan, a video model', (f) => f.has(/(^|\.)blocks\.0\.cross_attn\./)),
  other('hidream', 'HiDream', (f) => f.has(/(^|\.)double_stream_blocks\.0\./)),
  other('auraflow', 'AuraFlow or PixArt', (f) =>
    f.has(/(^|\.)(double_layers\.0\.|joint_transformer_blocks\.0\.|adaln_single\.)/),
  ),
  other('upscaler', 'an upscaler (ESRGAN)', (f) => f.has(/(rdb1\.conv1|RDB1\.conv1|^conv_first\.weight$)/)),
  other(
    'preview-decoder',
    'a small decoder for previews (TAESD)',
    (f) => f.has(/^(decoder\.layers\.\d+\.|\d+\.conv\.0\.)/),
    'Give it as previewDecoder',
  ),
  other(
    'clip-vision',
    'CLIP’s or SigLIP’s encoder of pictures',
    (f) => f.has(/(^|\.)vision_model\./) && !f.has(/(^|\.)text_model\./),
  ),
  other('openclip', 'an OpenCLIP text encoder (of Stable Diffusion XL or 2)', (f) =>
    f.has(/(^|\.)transformer\.resblocks\.0\./),
  ),
  other(
    'language-model',
    'a language model',
    (f) =>
      f.has(/(^|\.)(layers|blk)\.0\.(self_attn\.q_proj|attn_q)\.weight$/) &&
      !f.has(/(^|\.)(text_model|encoder|enc)\.?/),
  ),
];

const NETWORK_NAMES: Record<NetworkName, string> = {
  transformer: 'a FLUX.1 transformer',
  vae: 'an autoencoder',
  clip: 'a CLIP text encoder',
  t5: 'a T5 encoder',
};

/** What the file holds; `unknown` when nothing fits. */
export function identifyModel(source: WeightSource): Identity {
  const names = [...source.tensors.keys()];
  const facts: Facts = {
    has: (pattern) => names.some((name) => pattern.test(name)),
    tensor: (pattern) => {
      const name = names.find((each) => pattern.test(each));
      return name === undefined ? undefined : source.tensors.get(name);
    },
    metadata: source.metadata ?? {},
    unknownScale: () => names.some((name) => isUnknownScale(source, name)),
  };
  const rule = RULES.find(({ test }) => test(facts));
  const found = findNetworks(names);
  if (rule) {
    const { kind, what, advice } = rule;
    return { kind, what, unusable: true, networks: [], ...(advice !== undefined && { advice }) };
  }
  const odd = otherNetwork(facts, found);
  if (odd) return odd;
  const networks = [...found.keys()];
  if (networks.length === 0) return { kind: 'unknown', what: describeUnknown(names), networks };
  const variant = found.has('transformer') ? variantOf(facts) : undefined;
  const all = networks.map((network) => NETWORK_NAMES[network]);
  return {
    kind: networks.length > 1 ? 'all-in-one' : networks[0]!,
    what: variant && variant !== 'plain' ? VARIANTS[variant] : all.join(' with '),
    networks,
    ...(variant && { variant }),
  };
}

/** Beside 8-bit floats: their own scales, and those of activations, which weights do not need. */
const KNOWN_SCALES = /^(scale_weight|weight_scale|weight_scale_2|(scale_)?(input|output)(_scale)?)$/;

function isUnknownScale({ tensors }: WeightSource, name: string): boolean {
  const [, module, last] = /^(.*?)(?:\.weight)?\.([^.]*scale[^.]*)$/i.exec(name) ?? [];
  if (last === undefined || KNOWN_SCALES.test(last)) return false;
  return /^F8_E[45]M[23]$/.test(tensors.get(`${module}.weight`)?.dtype ?? '');
}

const VARIANTS: Record<Exclude<FluxVariant, 'plain'>, string> = {
  fill: 'FLUX.1 Fill [dev]',
  control: 'FLUX.1 Canny or Depth [dev]',
};

/** Channels that come in: the latents alone, with masked latents and mask, or with a control picture. */
function variantOf({ tensor }: Facts): FluxVariant {
  const channels = tensor(/(^|\.)(img_in|x_embedder)\.weight$/)?.shape[1];
  return channels === 384 ? 'fill' : channels === 128 ? 'control' : 'plain';
}

/** Encoders and autoencoders that have FLUX's names and are not FLUX's. */
function otherNetwork({ tensor }: Facts, found: ReadonlyMap<NetworkName, unknown>): Identity | undefined {
  if (found.size !== 1) return undefined;
  const named = (kind: string, what: string): Identity => ({ kind, what, unusable: true, networks: [] });
  const latents = tensor(/(^|\.)decoder\.conv_in\.weight$/);
  if (found.has('vae') && latents && latents.shape.length === 5)
    return named('video-vae', 'the autoencoder of a video model');
  if (found.has('vae') && latents?.shape[1] === 4)
    return named('sd-vae', 'the autoencoder of Stable Diffusion (4 channels)');
  if (found.has('vae') && latents?.shape[1] === 32)
    return named('flux2-vae', 'the autoencoder of FLUX.2 (32 channels)');
  const table = tensor(/(^|\.)(shared|token_embd|embed_tokens)\.weight$/);
  if (found.has('t5') && table && table.shape[0]! > 200_000) return named('umt5', 'a UMT5 encoder (of Wan)');
  const clip = tensor(/(^|\.)embeddings\.token_embedding\.weight$/);
  if (found.has('clip') && clip && (clip.shape[1] === 1280 || clip.shape[1] === 1024)) {
    return named('clip-g', 'another CLIP text encoder (of Stable Diffusion XL or 2)');
  }
  return undefined;
}

function describeUnknown(names: readonly string[]): string {
  if (names.length === 0) return 'a file without tensors';
  const shown = names.slice(0, 3).map((name) => `"${name.slice(0, 80)}"`);
  return `a file of ${names.length} tensors of an unknown model (${shown.join(', ')}${names.length > 3 ? ', …' : ''})`;
}
