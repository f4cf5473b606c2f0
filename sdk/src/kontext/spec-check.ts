// Holds a model's four networks against each other and against what FLUX's kind allows, before anything is compiled for them.
// Comes with the compiler: a bundle was checked when it was made, and has checks of its own.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { Model } from '../model/open.ts';
import { checkSpecBounds } from '../model/spec-bounds.ts';
import { checkTensors } from '../programs/model.ts';
import { CONTROL_CHANNELS, LATENT_CHANNELS, TOKEN_CHANNELS } from './latents.ts';
import type { ModelSpecs } from './programs.ts';

/** The four networks must fit together; a folder mixed from two models fails here, not in the middle of an edit. */
export function checkSpecs(model: Model, specs: ModelSpecs): ModelSpecs {
  checkSpecBounds(specs, model.label, 'weights-invalid');
  const { clip, t5, transformer, vae, preview } = specs;
  const headSize = transformer.hidden / transformer.heads;
  const rules: [fits: boolean, problem: string][] = [
    [
      transformer.pooledWidth === clip.width,
      `the transformer wants a pooled text of ${transformer.pooledWidth}, CLIP gives ${clip.width}`,
    ],
    [
      transformer.textWidth === t5.width,
      `the transformer wants text of width ${transformer.textWidth}, T5 gives ${t5.width}`,
    ],
    [
      vae.latentChannels === LATENT_CHANNELS,
      `the autoencoder has ${vae.latentChannels} latent channels, not ${LATENT_CHANNELS}`,
    ],
    [
      !preview || (preview.latentChannels === LATENT_CHANNELS && preview.blocks.length === 4),
      `the preview decoder is not for FLUX's latents: it takes ${preview?.latentChannels} channels and doubles ${(preview?.blocks.length ?? 1) - 1} times, not ${LATENT_CHANNELS} and 3`,
    ],
    [vae.channels.length === 4, `the autoencoder halves ${vae.channels.length - 1} times, not 3`],
    [
      transformer.outChannels === TOKEN_CHANNELS &&
        Object.values(CONTROL_CHANNELS).includes(transformer.inChannels - TOKEN_CHANNELS),
      `the transformer has ${transformer.inChannels} input and ${transformer.outChannels} output channels; known are 64 (dev, schnell, Kontext), 128 (Canny, Depth) and 384 (Fill) in, 64 out`,
    ],
    [
      transformer.axes.reduce((sum, axis) => sum + axis, 0) === headSize,
      `the rotary axes ${transformer.axes.join(' + ')} do not add up to the head size ${headSize}`,
    ],
  ];
  const broken = rules.find(([fits]) => !fits);
  if (broken) throw new KontextError('weights-invalid', `${model.label}: ${broken[1]}.`, { model: model.label });
  checkTensors(model, specs);
  return specs;
}
