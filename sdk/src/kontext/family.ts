// Which member of the FLUX.1 family a model is, told from its transformer's tensors, and what it can be asked for.
// The networks are the same; what differs is what the first layer takes, and whether guidance was distilled in.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { Model } from '../model/open.ts';
import { CONTROL_CHANNELS, TOKEN_CHANNELS } from './latents.ts';
import type { ModelDefaults } from './options.ts';
import type { CheckedRequest } from './request.ts';

/**
 * - `edit`: [dev], [Krea dev] and Kontext, which have the same tensors;
 * - `fast`: [schnell], without guidance;
 * - `fill`: Fill, which sees what is kept and the mask;
 * - `control`: Canny and Depth, which see a control picture.
 */
export type Family = 'edit' | 'fast' | 'fill' | 'control';

/** Of the checkpoint's shapes; a model that is none of these is refused when its programs are made. */
export function familyOf({ parts }: Pick<Model, 'parts'>): Family {
  const { tensors } = parts.transformer.weights;
  const control = (tensors.get('img_in.weight')?.shape[1] ?? TOKEN_CHANNELS) - TOKEN_CHANNELS;
  if (control === CONTROL_CHANNELS.fill) return 'fill';
  if (control === CONTROL_CHANNELS.picture) return 'control';
  return tensors.has('guidance_in.in_layer.weight') ? 'edit' : 'fast';
}

/** What a member is published with, where that differs from the options table. */
export const FAMILY_DEFAULTS: Record<
  Family,
  Pick<ModelDefaults, 'steps' | 'maxSequenceLength'> & { guidance?: number }
> = {
  edit: {},
  fast: { steps: 4, maxSequenceLength: 256 },
  fill: { steps: 50, guidance: 30 },
  control: { guidance: 10 },
};

const EDITING_NEEDS =
  'editing by instruction alone needs FLUX.1 Kontext [dev], for example flux1-kontext-dev.safetensors';

/** @throws KontextError `invalid-request` when this model cannot do what is asked */
export function checkFamily(family: Family, request: CheckedRequest): void {
  const refuse = (message: string): never => {
    throw new KontextError('invalid-request', message, { family });
  };
  if (family === 'fill') {
    if (!request.mask)
      refuse(
        `This model is FLUX.1 Fill: it fills a masked part of a picture. Call edit() with a mask; ${EDITING_NEEDS}.`,
      );
    if (request.references.length > 1) refuse('FLUX.1 Fill sees no references. Leave out references.');
    if (request.cache?.kind === 'region') {
      refuse('A region cache does not go with FLUX.1 Fill, which draws the whole picture anew. Leave out cache.');
    }
  }
  if (family === 'control') {
    if (request.control === undefined) {
      refuse(
        `This model is FLUX.1 Canny or Depth: it follows a control picture. Give its edges or depths as control; ${EDITING_NEEDS}.`,
      );
    }
    if (request.references.length > 0 && !request.mask && request.strength === 1) {
      refuse('FLUX.1 Canny and Depth do not see the image. Call generate(), or give a strength below 1.');
    }
    if (request.references.length > 1) refuse('FLUX.1 Canny and Depth see no references. Leave out references.');
  } else if (request.control !== undefined) {
    refuse('This model takes no control picture; FLUX.1 Canny and Depth do. Leave out control.');
  }
}

/** Whether a member sees pictures as further tokens, as Kontext was trained to. */
export const seesContext = (family: Family): boolean => family === 'edit' || family === 'fast';
