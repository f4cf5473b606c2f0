// Shows a checkpoint under the names of the original (BFL) releases, whatever naming its file uses.
// The compiler then knows one naming, and both namings give the same program.
//
// The rules were derived from the two public implementations' parameter lists: diffusers splits qkv and linear1 by rows,
// numbers the decoder's up-blocks from the other end, writes 1×1 convolutions of the VAE's attention as linears, and
// stores norm_out as [scale, shift] where BFL's final layer has [shift, scale].

import { KontextError } from '../../errors.ts';
import { describeTensor, type SourceTensor, sourceTensor, type WeightSource } from '../source.ts';

/** A run of one file tensor's bytes inside a tensor of the view. */
interface Part {
  name: string;
  start: number;
  end: number;
}

/** `source` itself when its names are BFL's, T5's or CLIP's already; otherwise a view that costs no memory. */
export function bflNaming(source: WeightSource): WeightSource {
  const names = [...source.tensors.keys()];
  if (names.some((name) => name.startsWith('transformer_blocks.') || name.startsWith('single_transformer_blocks.'))) {
    return renamed(source, transformerTargets(names));
  }
  if (names.some((name) => name.includes('.mid_block.'))) return renamed(source, vaeTargets(names));
  return source;
}

/** A small decoder (TAESD's kind) under diffusers' names; its author's files number the layers from a clamp on, which diffusers has not. */
export function tinyDecoderNaming(source: WeightSource): WeightSource {
  const names = [...source.tensors.keys()];
  if (!names.every((name) => /^\d+\./.test(name))) return source;
  const ours = (name: string) => name.replace(/^\d+/, (layer) => `decoder.layers.${Number(layer) - 1}`);
  return renamed(
    source,
    names.map((name) => ({ name: ours(name), from: [name] })),
  );
}

/** How a tensor of the view is made from tensors of the file, before sizes are known. */
interface Target {
  name: string;
  /** Concatenated along axis 0. */
  from: string[];
  /** The second half of the rows comes first. */
  swapHalves?: boolean;
  /** A linear shown as a 1×1 convolution. */
  conv1x1?: boolean;
}

const EMBEDDERS: Record<string, string> = {
  x_embedder: 'img_in',
  context_embedder: 'txt_in',
  'time_text_embed.timestep_embedder.linear_1': 'time_in.in_layer',
  'time_text_embed.timestep_embedder.linear_2': 'time_in.out_layer',
  'time_text_embed.text_embedder.linear_1': 'vector_in.in_layer',
  'time_text_embed.text_embedder.linear_2': 'vector_in.out_layer',
  'time_text_embed.guidance_embedder.linear_1': 'guidance_in.in_layer',
  'time_text_embed.guidance_embedder.linear_2': 'guidance_in.out_layer',
  proj_out: 'final_layer.linear',
};

/** Inside `transformer_blocks.N.`, to what follows `double_blocks.N.`; arrays concatenate. */
const DOUBLE_BLOCK: [from: string[], to: string][] = [
  [['norm1.linear'], 'img_mod.lin'],
  [['norm1_context.linear'], 'txt_mod.lin'],
  [['attn.to_q', 'attn.to_k', 'attn.to_v'], 'img_attn.qkv'],
  [['attn.add_q_proj', 'attn.add_k_proj', 'attn.add_v_proj'], 'txt_attn.qkv'],
  [['attn.norm_q'], 'img_attn.norm.query_norm'],
  [['attn.norm_k'], 'img_attn.norm.key_norm'],
  [['attn.norm_added_q'], 'txt_attn.norm.query_norm'],
  [['attn.norm_added_k'], 'txt_attn.norm.key_norm'],
  [['attn.to_out.0'], 'img_attn.proj'],
  [['attn.to_add_out'], 'txt_attn.proj'],
  [['ff.net.0.proj'], 'img_mlp.0'],
  [['ff.net.2'], 'img_mlp.2'],
  [['ff_context.net.0.proj'], 'txt_mlp.0'],
  [['ff_context.net.2'], 'txt_mlp.2'],
];

const SINGLE_BLOCK: [from: string[], to: string][] = [
  [['norm.linear'], 'modulation.lin'],
  [['attn.to_q', 'attn.to_k', 'attn.to_v', 'proj_mlp'], 'linear1'],
  [['attn.norm_q'], 'norm.query_norm'],
  [['attn.norm_k'], 'norm.key_norm'],
  [['proj_out'], 'linear2'],
];

function transformerTargets(names: string[]): Target[] {
  const targets: Target[] = [];
  for (const name of names) {
    const [, module, leaf] = /^(.*)\.(weight|bias)$/.exec(name) ?? [];
    if (module === undefined) continue;
    if (module === 'norm_out.linear') {
      targets.push({ name: `final_layer.adaLN_modulation.1.${leaf}`, from: [name], swapHalves: true });
      continue;
    }
    const embedder = EMBEDDERS[module];
    if (embedder) {
      targets.push({ name: `${embedder}.${leaf}`, from: [name] });
      continue;
    }
    const [, kind, index, inner] = /^(single_)?transformer_blocks\.(\d+)\.(.*)$/.exec(module) ?? [];
    const rule = (kind ? SINGLE_BLOCK : DOUBLE_BLOCK).find(([from]) => from[0] === inner);
    if (!rule) continue;
    const [from, to] = rule;
    const [theirs, ours] = kind
      ? ['single_transformer_blocks', 'single_blocks']
      : ['transformer_blocks', 'double_blocks'];
    targets.push({
      // BFL's RMS norms call their only parameter `scale`.
      name: `${ours}.${index}.${to}.${to.includes('norm.') ? 'scale' : leaf}`,
      from: from.map((part) => `${theirs}.${index}.${part}.${leaf}`),
    });
  }
  return targets;
}

const VAE_ATTENTION: Record<string, string> = {
  group_norm: 'norm',
  to_q: 'q',
  to_k: 'k',
  to_v: 'v',
  'to_out.0': 'proj_out',
};

function vaeTargets(names: string[]): Target[] {
  const upBlocks = 1 + Math.max(...names.map((name) => Number(/^decoder\.up_blocks\.(\d+)\./.exec(name)?.[1] ?? -1)));
  return names.map((name): Target => {
    const attention = /^(.*)\.mid_block\.attentions\.0\.(.*)\.(weight|bias)$/.exec(name);
    const inner = attention && VAE_ATTENTION[attention[2]!];
    if (inner) {
      return {
        name: `${attention[1]}.mid.attn_1.${inner}.${attention[3]}`,
        from: [name],
        conv1x1: inner !== 'norm' && attention[3] === 'weight',
      };
    }
    const ours = name
      .replace(/\.down_blocks\.(\d+)\./, '.down.$1.')
      .replace(/\.up_blocks\.(\d+)\./, (_, index: string) => `.up.${upBlocks - 1 - Number(index)}.`)
      .replace(/\.mid_block\.resnets\.(\d+)\./, (_, index: string) => `.mid.block_${Number(index) + 1}.`)
      .replace(/\.resnets\.(\d+)\./, '.block.$1.')
      .replace('.downsamplers.0.', '.downsample.')
      .replace('.upsamplers.0.', '.upsample.')
      .replace('.conv_shortcut.', '.nin_shortcut.')
      .replace('.conv_norm_out.', '.norm_out.');
    return { name: ours, from: [name] };
  });
}

/** One tensor of several, one below the other: of one type if they agree, else of parts. */
function joined(files: readonly SourceTensor[], swapHalves: boolean): SourceTensor {
  const first = files[0]!;
  const rows = files.reduce((sum, file) => sum + file.shape[0]!, 0);
  const shape = [rows, ...first.shape.slice(1)];
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  if (files.some(({ dtype }) => dtype !== first.dtype)) {
    const dtype = [...new Set(files.map((file) => file.dtype))].join(', ');
    return {
      dtype,
      shape,
      bytes,
      parts: files.map(({ dtype, type, shape, bytes, scales }) => ({
        dtype,
        ...(type && { type }),
        shape,
        bytes,
        ...(scales && { scales }),
      })),
    };
  }
  const { dtype, type } = first;
  return { dtype, ...(type && { type }), shape, bytes, ...scalesOf(files, rows, swapHalves) };
}

/** Scales of joined tensors: one where all agree, else one for each row. */
function scalesOf(files: readonly SourceTensor[], rows: number, swapHalves: boolean): Pick<SourceTensor, 'scales'> {
  const [first] = files;
  if (files.every(({ scales }) => scales === undefined)) return {};
  if (files.every(({ scales }) => scales?.length === 1 && scales[0] === first!.scales?.[0]))
    return { scales: first!.scales! };
  const scales = new Float32Array(rows);
  let row = 0;
  for (const file of files) {
    const count = file.shape[0]!;
    for (let i = 0; i < count; i++) scales[row + i] = file.scales?.[file.scales.length === 1 ? 0 : i] ?? 1;
    row += count;
  }
  return { scales: swapHalves ? Float32Array.from(scales, (_, i) => scales[(i + rows / 2) % rows]!) : scales };
}

function renamed(source: WeightSource, targets: Target[]): WeightSource {
  const tensors = new Map<string, SourceTensor>();
  const parts = new Map<string, Part[]>();
  for (const target of targets) {
    const files = target.from.map((name) => ({ name, ...sourceTensor(source, name) }));
    const first = files[0]!;
    const rest = first.shape.slice(1);
    for (const file of files) {
      if (file.shape.slice(1).join() === rest.join() && file.shape.length > 0) continue;
      throw new KontextError(
        'weights-invalid',
        `${source.label}: "${file.name}" (${describeTensor(file)}) does not join "${first.name}" ` +
          `(${describeTensor(first)}) to "${target.name}".`,
        { tensor: file.name, file: source.label },
      );
    }
    tensors.set(target.name, {
      ...joined(files, Boolean(target.swapHalves)),
      ...(target.conv1x1 && { shape: [...first.shape, 1, 1] }),
    });
    const half = first.bytes / 2;
    parts.set(
      target.name,
      target.swapHalves
        ? [
            { name: first.name, start: half, end: first.bytes },
            { name: first.name, start: 0, end: half },
          ]
        : files.map((file) => ({ name: file.name, start: 0, end: file.bytes })),
    );
  }
  const view: WeightSource = {
    label: source.label,
    tensors,
    async read(name, start, end, signal) {
      const { bytes } = sourceTensor(view, name);
      if (start < 0 || end < start || end > bytes)
        throw new RangeError(`${name}: bytes ${start} to ${end} of ${bytes}`);
      return readParts(source, parts.get(name)!, start, end, signal);
    },
    close: () => source.close(),
  };
  return view;
}

async function readParts(
  source: WeightSource,
  parts: Part[],
  start: number,
  end: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: { at: number; part: Part; from: number; to: number }[] = [];
  let partStart = 0;
  for (const part of parts) {
    const partEnd = partStart + part.end - part.start;
    const from = Math.max(start, partStart);
    const to = Math.min(end, partEnd);
    if (from < to) {
      pieces.push({ at: from - start, part, from: part.start + from - partStart, to: part.start + to - partStart });
    }
    partStart = partEnd;
  }
  if (pieces.length === 1) return source.read(pieces[0]!.part.name, pieces[0]!.from, pieces[0]!.to, signal);
  const bytes = new Uint8Array(end - start);
  for (const { at, part, from, to } of pieces) bytes.set(await source.read(part.name, from, to, signal), at);
  return bytes;
}
