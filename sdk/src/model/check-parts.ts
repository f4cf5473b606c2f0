// Holds a model's four networks to what its programs will ask for, from the headers of its files: names, types and shapes.
// Without this a file of another model would fail after minutes, in the middle of an edit.
import type { Component } from '../../../kernels-codegen/src/compile.ts';
import { wantedWeights } from '../../../kernels-codegen/src/models/wanted.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import { planChunks } from '../../../runtime/src/weights/plan.ts';
import { describeTensor } from '../../../runtime/src/weights/source.ts';
import type { ModelSpecs } from '../kontext/programs.ts';
import type { Model, PartName } from './open.ts';
import { PARTS } from './part-words.ts';

/** @throws KontextError `weights-invalid` naming file, part, and the first tensor that is missing or of another kind */
export function checkParts(model: Model, specs: ModelSpecs): void {
  const grid = { height: 1, width: 1 };
  const { clip, t5, transformer, vae } = specs;
  const components: [PartName, Component[]][] = [
    [
      'transformer',
      [
        { component: 'modulation', spec: transformer, steps: 1 },
        { component: 'denoise', spec: transformer, textTokens: 1, image: grid, references: [grid] },
      ],
    ],
    [
      'vae',
      [
        { component: 'vae-encode', spec: vae, height: 16, width: 16 },
        { component: 'vae-decode', spec: vae, height: 16, width: 16 },
      ],
    ],
    ['clip', [{ component: 'clip', spec: clip, tokens: Math.min(77, clip.positions) }]],
    ['t5', [{ component: 't5', spec: t5, tokens: 8 }]],
  ];
  for (const [part, list] of components) {
    const { weights } = model.parts[part];
    const fail = (problem: string, tensor: string) =>
      new KontextError(
        'weights-invalid',
        `${weights.label} cannot be the ${PARTS[part].role}: ${problem}. Needed is ${PARTS[part].needs}, for example ${PARTS[part].example}.`,
        { file: weights.label, part, tensor },
      );
    const wanted = list.flatMap(wantedWeights);
    const lacking = wanted.filter(({ name }) => !weights.tensors.has(name));
    if (lacking.length > 0) {
      const more = lacking.length > 1 ? ` and ${lacking.length - 1} more of ${wanted.length} tensors` : '';
      throw fail(`it lacks "${lacking[0]!.name}"${more}`, lacking[0]!.name);
    }
    for (const { name, rows, role, channels, shape } of wanted) {
      const tensor = weights.tensors.get(name)!;
      // What `kontext pack` stored is compared with the program's own request when it is read.
      if (weights.stored && !tensor.type && !tensor.parts) continue;
      const layout = role === 'convolution' ? 'ohwi' : 'matrix';
      try {
        const request = {
          name,
          ...(rows && { rows }),
          format: 'f32',
          shape,
          layout,
          bytes: 4 * shape[0] * shape[1],
        } as const;
        planChunks({ ...request, ...(channels && { padIn: channels.padded }) }, tensor, weights.label, 2 ** 24);
      } catch {
        const readable = tensor.type || tensor.parts;
        throw fail(
          readable
            ? `its "${name}" is ${describeTensor(tensor)}, and ${rows ? `rows ${rows[0]} to ${rows[1]} of ` : ''}[${shape.join(', ')}] are needed`
            : `its "${name}" is of type ${tensor.dtype}, which cannot be read. Use the 16-bit file, an fp8 one, or a GGUF`,
          name,
        );
      }
    }
  }
}
