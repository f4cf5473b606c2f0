// Which format each matrix of a packed model gets: by part, by pattern of names, and by what is known to need more.
import { KontextError } from '../../../runtime/src/errors.ts';
import { columnsUnit } from '../../../runtime/src/program/formats.ts';
import { quantisedFormat } from '../../../runtime/src/program/quantized.ts';
import type { WeightFormat, WeightRequest } from '../../../runtime/src/program/types.ts';
import type { PartName } from './open.ts';

/** Formats that any checkpoint can be packed to. */
export const PACK_FORMATS = ['q4', 'q8', 'f16'] as const;
export type PackFormat = (typeof PACK_FORMATS)[number];

/** `q4` for all, or rules: by part (`t5`), or by the names of tensors with `*` (`double_blocks.*.img_mlp.*`). The last that fits wins. */
export type PackRules = PackFormat | Readonly<Record<string, PackFormat>>;

const PARTS: readonly string[] = ['clip', 't5', 'transformer', 'vae'];

/** Says for each weight, of a program compiled for f16 storage, in which format to pack it. @throws KontextError `invalid-request` for a rule that is none */
export function packFormats(rules: PackRules): (part: PartName, request: WeightRequest) => WeightFormat {
  const list =
    typeof rules === 'string' ? [['transformer', rules] as const, ['t5', rules] as const] : Object.entries(rules);
  for (const [pattern, format] of list) {
    if (PACK_FORMATS.includes(format)) continue;
    throw new KontextError(
      'invalid-request',
      `quantization of "${pattern}" is ${JSON.stringify(format)}; it must be one of ${PACK_FORMATS.join(', ')}.`,
    );
  }
  const tests = list.map(([pattern, format]) => ({ pattern, test: patternTest(pattern), format }));
  return (part, { name, format: native, shape, layout }) => {
    // Vectors, and what no kernel takes in another format.
    if (native === 'f32' || layout === 'ohwi') return native;
    let chosen: PackFormat = 'f16';
    let byName = false;
    for (const { pattern, test, format } of tests) {
      if (PARTS.includes(pattern) ? pattern !== part : !test.test(name)) continue;
      chosen = format;
      byName = !PARTS.includes(pattern);
    }
    // A part gets what `quantization` would make of it at load; a name gets what it is given.
    if (!byName && chosen !== 'f16') return quantisedFormat(chosen, name, ...shape) ?? native;
    return shape[1] % columnsUnit(chosen) === 0 ? chosen : native;
  };
}

/** `*` stands for anything; all else for itself. */
function patternTest(pattern: string): RegExp {
  const text = pattern.split('*').map((plain) => plain.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${text.join('.*')}$`);
}
