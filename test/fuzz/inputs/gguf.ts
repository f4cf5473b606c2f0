// GGUF files as damage and malice would change them: bytes anywhere, headers whose every field can be odd, parts of several files.
import { memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { openGguf, openSplitGguf } from '../../../runtime/src/weights/files/gguf.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import { decodeBlocks } from '../../../runtime/src/weights/types/decode.ts';
import { type GgufOptions, type GgufTensor, ggufBytes } from '../../support/gguf.ts';
import { EDGES, mutateBytes, pick, type Random } from '../mutate.ts';
import type { Fuzzed } from './index.ts';

/** ggml's numbers of types, with bytes and elements of a block; the last two are unknown and unsupported. */
const TYPES = [
  [0, 4, 1],
  [1, 2, 1],
  [2, 18, 32],
  [8, 34, 32],
  [12, 144, 256],
  [30, 2, 1],
  [10, 84, 256],
  [77, 4, 1],
] as const;

const METADATA: NonNullable<GgufOptions['metadata']> = {
  'general.architecture': 'flux',
  'general.name': 'fuzzed',
  'general.file_type': 7,
  'tokenizer.ggml.tokens': ['a', 'b', 'c'],
  'comfy.gguf.orig_shape.blocks.0.weight': [2, 32],
};

function tensors(): GgufTensor[] {
  return [
    { name: 'blocks.0.weight', shape: [2, 32], type: 8, data: new Uint8Array(68).fill(3) },
    { name: 'blocks.0.bias', shape: [2], type: 0, data: new Uint8Array(8) },
    { name: 'head', shape: [256], type: 12, data: new Uint8Array(144).fill(9) },
  ];
}

export function ggufInputs(): Fuzzed[] {
  const sound = ggufBytes(tensors(), { metadata: METADATA });
  const parts = [0, 1, 2].map((index) =>
    ggufBytes([tensors()[index]!], { metadata: { 'split.no': index, 'split.count': 3, 'split.tensors.count': 3 } }),
  );
  const name = (index: number) => `m-0000${index + 1}-of-00003.gguf`;
  return [
    {
      name: 'GGUF bytes',
      async run(random) {
        const { source } = await openGguf(memoryBytes(mutateBytes(random, sound)));
        await readAll(source);
      },
    },
    {
      name: 'GGUF header',
      async run(random) {
        const { source } = await openGguf(memoryBytes(oddFile(random)));
        await readAll(source);
      },
    },
    {
      name: 'GGUF parts',
      async run(random) {
        const changed = Math.floor(random() * 3);
        const files = parts.map((part, i) => (i === changed ? mutateBytes(random, part) : part));
        const sibling = async (wanted: string) => {
          const index = files.findIndex((_, i) => name(i) === wanted);
          return index < 0 || random() < 0.02 ? undefined : memoryBytes(files[index]!, wanted);
        };
        const first = Math.floor(random() * 3);
        await readAll(await openSplitGguf(memoryBytes(files[first]!, name(first)), sibling));
      },
    },
  ];
}

/** What a header promised must be there to be read. */
async function readAll(source: WeightSource): Promise<void> {
  for (const [key, { type, bytes }] of source.tensors) {
    const data = await source.read(key, 0, bytes);
    if (data.length !== bytes) throw new Error(`${key}: ${data.length} bytes of ${bytes}`);
    if (type) decodeBlocks(type, data);
  }
  await source.close();
}

/** One to three odd fields in a file that is else well-formed. */
function oddFile(random: Random): Uint8Array<ArrayBuffer> {
  const list = tensors();
  const options: GgufOptions = { metadata: { ...METADATA } };
  const number = () => pick(random, [...EDGES, -1, 2 ** 40, 2 ** 53, 3, 31, 32, 33]);
  for (let changes = 1 + Math.floor(random() * 3); changes > 0; changes--) {
    const tensor = pick(random, list);
    switch (Math.floor(random() * 9)) {
      case 0:
        tensor.name = pick(random, [...list.map((other) => other.name), '', '\0', 'ⅷ', 'x'.repeat(300), '__proto__']);
        break;
      case 1:
        tensor.shape = Array.from({ length: Math.floor(random() * 10) }, number);
        break;
      case 2: {
        const [type, bytes, elements] = pick(random, TYPES);
        Object.assign(tensor, {
          type,
          shape: [elements],
          data: new Uint8Array(bytes).fill(Math.floor(random() * 256)),
        });
        break;
      }
      case 3:
        tensor.type = number();
        break;
      case 4:
        tensor.offset = number();
        break;
      case 5:
        options.metadata![pick(random, ['split.no', 'split.count', 'general.alignment', 'x'])] = pick<
          string | number | number[] | string[]
        >(random, ['text', number(), [number(), number()], [], ['a', 'ⅷ'], Array.from({ length: 40 }, number)]);
        break;
      case 6:
        options[random() < 0.5 ? 'tensorCount' : 'valueCount'] = BigInt(number());
        break;
      case 7:
        options.version = number();
        break;
      default:
        options.metadata![`comfy.gguf.orig_shape.${tensor.name}`] = pick<number[] | string>(random, [
          [number(), number()],
          [...tensor.shape].reverse(),
          [],
          'x',
        ]);
    }
  }
  const file = ggufBytes(list, options);
  return random() < 0.1 ? file.slice(0, Math.floor(random() * file.length)) : file;
}
