// Finds the small model that comes with the package, so that everything can be tried without a download.
// It edits 64×64 scenes of emoji; its own page is examples/demo-model/README.md.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { KontextError } from '../../../runtime/src/errors.ts';
import { refusedPermission } from '../../../runtime/src/permission.ts';

/** Folder of the demo model. @throws KontextError `weights-invalid` when the package was installed without it */
export function demoModel(): string {
  return demoFile('model', 'model_index.json');
}

/**
 * Path of a picture to try the demo model on: 64×64 pixels, an apple on red.
 *
 * @throws KontextError `image-invalid` when the package was installed without it
 */
export function demoPicture(): string {
  return join(demoFile('inputs', 'apple-on-red.png'), 'apple-on-red.png');
}

/**
 * Path of an adapter (LoRA) for the demo model: everything it draws is black and white.
 *
 * @throws KontextError `weights-invalid` when the package was installed without it
 */
export function demoAdapter(): string {
  return join(demoFile('adapters', 'noir.safetensors'), 'noir.safetensors');
}

/** @returns the folder `examples/demo-model/NAME` that holds `file` */
function demoFile(name: 'model' | 'inputs' | 'adapters', file: string): string {
  // The source lies three folders below the package, the built files at other depths.
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const place = join(folder, 'examples', 'demo-model', name);
    try {
      if (existsSync(join(place, file))) return place;
    } catch (cause) {
      // Only Deno's existsSync throws.
      const refused = refusedPermission(cause) ?? String(cause);
      throw new KontextError('weights-invalid', `The demo model cannot be looked for. ${refused}`, {}, { cause });
    }
    if (folder === dirname(folder)) break;
  }
  if (name === 'model') {
    throw new KontextError('weights-invalid', 'The demo model is not installed. Give another model with --model PATH.');
  }
  throw name === 'adapters'
    ? new KontextError('weights-invalid', 'The demo adapter is not installed. Give one of your own.')
    : new KontextError('image-invalid', 'The demo picture is not installed. Give one of your own.');
}
