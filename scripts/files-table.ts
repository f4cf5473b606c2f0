// What FLUX.1's transformer takes on a GPU from each type of file, from the tables that loading itself reads: the first table of
// docs/guide/models-files.md. `npm run docs:files` writes it; a test holds the page to it.
import { checkpointShapes } from '../kernels-codegen/src/models/checkpoint-shapes.ts';
import { FLUX1_KONTEXT_DEV } from '../kernels-codegen/src/models/specs.ts';
import { columnsUnit, storedLayout, type WeightFormat } from '../runtime/src/program/formats.ts';
import { SOURCE_TYPES, sourceBits } from '../runtime/src/weights/types/index.ts';

const shapes = checkpointShapes(FLUX1_KONTEXT_DEV);

/** Bytes of a network's weights when every matrix that can be is in `format`, the others in f16, vectors in f32. */
function bytesIn(network: 'transformer' | 't5', format: WeightFormat): number {
  let bytes = 0;
  for (const { shape } of shapes[network].values()) {
    const [rows = 1, cols] = shape;
    if (cols === undefined) bytes += 4 * rows;
    else bytes += storedLayout(cols % columnsUnit(format) === 0 ? format : 'f16', rows, cols).bytes;
  }
  return bytes;
}

const gb = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** One row for each element type that files have, as Markdown. */
export function typesTable(): string {
  const rows = Object.values(SOURCE_TYPES).map((type) => {
    const formats: WeightFormat[] = type.stored ? [type.stored] : ['f16', 'f32'];
    const memory = (network: 'transformer' | 't5') =>
      formats.map((format) => gb(bytesIn(network, format))).join(' or ');
    const bits = sourceBits(type)
      .toFixed(3)
      .replace(/\.?0+$/, '');
    const loss = type.stored ? 'none' : LOSS[type.name];
    return [type.name, bits, formats.map((f) => `\`${f}\``).join(' or '), memory('transformer'), memory('t5'), loss];
  });
  return [
    '| type in the file | bits a weight | held on the GPU as | transformer | T5 | loss |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows.map((cells) => `| ${cells.join(' | ')} |`),
  ].join('\n');
}

/** Of plain floats, which take the precision of the arithmetic. */
const LOSS: Readonly<Record<string, string>> = {
  F32: 'in f16: 11 of 24 bits are kept, beyond ±65,504 an error',
  BF16: 'in f16: none, but for values below 6·10⁻⁸, and beyond ±65,504 an error',
  F16: 'none',
};
