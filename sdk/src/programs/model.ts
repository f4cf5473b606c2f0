// Are these weights those of a model's specs, whether a bundle or configs gave them? Told by the shapes of telling tensors.
// The compiler's own readers of shapes would do too, but then the compiler would have to be there.

import type { BundleSpecs } from '../../../kernels-codegen/src/bundle/types.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import type { Model, PartName } from '../model/open.ts';

/** For a bundle. @throws KontextError `program-mismatch` naming the first tensor that differs */
export function checkModel(model: Model, specs: BundleSpecs, name: string): void {
  const differing = firstDifference(model, specs);
  if (!differing) return;
  throw new KontextError(
    'program-mismatch',
    `The bundle is for ${name}, not for ${model.label}: ${differing.text}. Compile a bundle for this model.`,
    differing.details,
  );
}

/** For specs that configs gave: a block that they leave out would not be missed. @throws KontextError `weights-invalid` */
export function checkTensors(model: Model, specs: BundleSpecs): void {
  const differing = firstDifference(model, specs);
  if (!differing) return;
  throw new KontextError(
    'weights-invalid',
    `${model.label}: configs and weights do not belong together: ${differing.text}.`,
    differing.details,
  );
}

function firstDifference(
  model: Model,
  specs: BundleSpecs,
): { text: string; details: Record<string, unknown> } | undefined {
  for (const [part, tensor, expected] of tellingTensors(specs)) {
    const found = model.parts[part].weights.tensors.get(tensor)?.shape;
    const same = expected === undefined ? found === undefined : found?.join() === expected.join();
    if (same) continue;
    const show = (shape: readonly number[] | undefined) => (shape ? `[${shape.join(', ')}]` : 'absent');
    return {
      text: `${part} ${tensor} should be ${show(expected)} and is ${show(found)}`,
      details: { part, tensor, expected, found: found && [...found] },
    };
  }
  return undefined;
}

/** Widths by a tensor's shape, depths by the first block there must not be. */
function tellingTensors(specs: BundleSpecs): [PartName, string, number[] | undefined][] {
  const { clip, t5, transformer: flux, vae } = specs;
  const { hidden, doubleBlocks, singleBlocks } = flux;
  const mlp = Math.round(hidden * flux.mlpRatio);
  const deepest = vae.channels.length - 1;
  return [
    ['transformer', 'img_in.weight', [hidden, flux.inChannels]],
    ['transformer', 'txt_in.weight', [hidden, flux.textWidth]],
    ['transformer', 'vector_in.in_layer.weight', [hidden, flux.pooledWidth]],
    ['transformer', 'guidance_in.in_layer.weight', flux.guidance ? [hidden, 256] : undefined],
    ['transformer', 'double_blocks.0.img_mlp.0.weight', [mlp, hidden]],
    ['transformer', 'double_blocks.0.img_attn.norm.query_norm.scale', [hidden / flux.heads]],
    ['transformer', `double_blocks.${doubleBlocks - 1}.img_mlp.0.weight`, [mlp, hidden]],
    ['transformer', `double_blocks.${doubleBlocks}.img_mlp.0.weight`, undefined],
    ['transformer', `single_blocks.${singleBlocks - 1}.norm.query_norm.scale`, [hidden / flux.heads]],
    ['transformer', `single_blocks.${singleBlocks}.norm.query_norm.scale`, undefined],
    ['t5', 'encoder.block.0.layer.1.DenseReluDense.wi_0.weight', [t5.mlpWidth, t5.width]],
    ['t5', 'encoder.block.0.layer.0.SelfAttention.q.weight', [t5.heads * t5.headSize, t5.width]],
    ['t5', 'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight', [t5.buckets, t5.heads]],
    ['t5', `encoder.block.${t5.layers - 1}.layer.1.DenseReluDense.wi_0.weight`, [t5.mlpWidth, t5.width]],
    ['t5', `encoder.block.${t5.layers}.layer.1.DenseReluDense.wi_0.weight`, undefined],
    ['clip', 'text_model.encoder.layers.0.mlp.fc1.weight', [clip.mlpWidth, clip.width]],
    ['clip', 'text_model.embeddings.position_embedding.weight', [clip.positions, clip.width]],
    ['clip', `text_model.encoder.layers.${clip.layers - 1}.mlp.fc1.weight`, [clip.mlpWidth, clip.width]],
    ['clip', `text_model.encoder.layers.${clip.layers}.mlp.fc1.weight`, undefined],
    ...vae.channels.map((channels, level): [PartName, string, number[]] => [
      'vae',
      `encoder.down.${level}.block.0.conv1.weight`,
      [channels, vae.channels[Math.max(0, level - 1)]!, 3, 3],
    ]),
    ['vae', `encoder.down.${vae.channels.length}.block.0.conv1.weight`, undefined],
    ['vae', `encoder.down.${deepest}.block.${vae.blocks - 1}.conv2.weight`, square(vae.channels[deepest]!)],
    ['vae', `decoder.up.0.block.${vae.blocks}.conv2.weight`, square(vae.channels[0]!)],
    ['vae', 'decoder.conv_in.weight', [vae.channels[deepest]!, vae.latentChannels, 3, 3]],
    ['vae', `encoder.down.${deepest}.block.${vae.blocks}.conv1.weight`, undefined],
  ];
}

/** A convolution of 3×3 taps that keeps the number of channels. */
const square = (channels: number): number[] => [channels, channels, 3, 3];
