// The four networks in messages. Apart from the opening of files, which a packed model does without.
import type { NetworkName as PartName } from '../../../runtime/src/weights/naming/parts.ts';

/** What each part is called in messages, and a file that is one. */
export const PARTS: Record<PartName, { role: string; needs: string; example: string }> = {
  transformer: {
    role: 'transformer',
    needs: 'the transformer of FLUX.1 Kontext [dev]',
    example: 'flux1-kontext-dev.safetensors',
  },
  vae: { role: 'autoencoder', needs: 'FLUX.1’s autoencoder', example: 'ae.safetensors' },
  clip: { role: 'CLIP text encoder', needs: 'the text encoder of CLIP-L', example: 'clip_l.safetensors' },
  t5: { role: 'T5 text encoder', needs: 'the encoder of T5 XXL v1.1', example: 't5xxl_fp16.safetensors' },
};
