// The virtual checkpoint as files: safetensors in bfloat16 and GGUF in Q4_0, each a ByteSource that computes what is read of it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ByteSource } from '../../runtime/src/weights/bytes.ts';
import { bfloat16Values, q4Blocks } from './values.ts';

type Shapes = Record<string, number[]>;

/** A run of bytes that one function computes. */
interface Section {
  start: number;
  end: number;
  bytes(from: number, to: number): Uint8Array;
}

function virtual(name: string, sections: Section[]): ByteSource {
  const { end: size } = sections.at(-1)!;
  return {
    name,
    size,
    async read(start, end) {
      const out = new Uint8Array(end - start);
      let low = 0;
      for (let high = sections.length; low < high; ) {
        const middle = (low + high) >> 1;
        if (sections[middle]!.end <= start) low = middle + 1;
        else high = middle;
      }
      for (let i = low; i < sections.length && sections[i]!.start < end; i++) {
        const section = sections[i]!;
        const from = Math.max(section.start, start);
        const to = Math.min(section.end, end);
        if (from < to) out.set(section.bytes(from - section.start, to - section.start), from - start);
      }
      return out;
    },
    async close() {},
  };
}

/** Bytes `[from, to)` of something made of whole units. */
function cutOut(from: number, to: number, unit: number, make: (first: number, end: number) => ArrayBufferView) {
  const first = Math.floor(from / unit);
  const { buffer, byteLength } = make(first, Math.ceil(to / unit));
  return new Uint8Array(buffer, 0, byteLength).subarray(from - first * unit, to - first * unit);
}

const bfloat16Section = (name: string, shape: readonly number[], start: number, end: number): Section => ({
  start,
  end,
  bytes: (from, to) => cutOut(from, to, 2, (a, b) => bfloat16Values(name, shape, a, b)),
});

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** A safetensors file of these tensors in bfloat16. */
export function virtualSafetensors(name: string, shapes: Shapes): ByteSource {
  const header: Record<string, unknown> = {};
  const placed: [string, number[], number, number][] = [];
  let at = 0;
  for (const [tensor, shape] of Object.entries(shapes)) {
    const end = at + 2 * count(shape);
    header[tensor] = { dtype: 'BF16', shape, data_offsets: [at, end] };
    placed.push([tensor, shape, at, end]);
    at = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(32);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(json, 8);
  return virtual(name, [
    { start: 0, end: head.length, bytes: (from, to) => head.subarray(from, to) },
    ...placed.map(([tensor, shape, start, end]) =>
      bfloat16Section(tensor, shape, head.length + start, head.length + end),
    ),
  ]);
}

const GGUF_F32 = 0;
const GGUF_Q4_0 = 2;

/** A GGUF file (v3) of these tensors: matrices in Q4_0, vectors in float32, as converters of FLUX write it. */
export function virtualGguf(name: string, shapes: Shapes): ByteSource {
  const head: number[] = [];
  const u32 = (value: number) => head.push(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24);
  const u64 = (value: number) => {
    u32(value % 2 ** 32);
    u32(Math.floor(value / 2 ** 32));
  };
  const text = (value: string) => {
    u64(value.length);
    head.push(...new TextEncoder().encode(value));
  };
  head.push(...new TextEncoder().encode('GGUF'));
  u32(3);
  u64(Object.keys(shapes).length);
  u64(1);
  text('general.architecture');
  u32(8);
  text('flux');
  let at = 0;
  const placed: { tensor: string; shape: number[]; start: number; end: number }[] = [];
  for (const [tensor, shape] of Object.entries(shapes)) {
    const matrix = shape.length > 1;
    text(tensor);
    u32(shape.length);
    // ggml counts dimensions from the innermost.
    for (const side of [...shape].reverse()) u64(side);
    u32(matrix ? GGUF_Q4_0 : GGUF_F32);
    u64(at);
    const end = at + (matrix ? (count(shape) / 32) * 18 : 4 * count(shape));
    placed.push({ tensor, shape, start: at, end });
    at = Math.ceil(end / 32) * 32;
  }
  while (head.length % 32 !== 0) head.push(0);
  const bytes = Uint8Array.from(head);
  const sections: Section[] = [{ start: 0, end: bytes.length, bytes: (from, to) => bytes.subarray(from, to) }];
  for (const { tensor, shape, start, end } of placed) {
    sections.push({
      start: bytes.length + start,
      end: bytes.length + end,
      bytes: (from, to) =>
        shape.length > 1
          ? cutOut(from, to, 18, (a, b) => q4Blocks(tensor, shape, a, b))
          : cutOut(from, to, 4, (a, b) => Uint32Array.from(bfloat16Values(tensor, shape, a, b), (v) => v << 16)),
    });
  }
  return virtual(name, sections);
}

const fixtures = join(import.meta.dirname, '../fixtures/checkpoints');
const demo = join(import.meta.dirname, '../../examples/demo-model/model');
const shapesOf = (file: string, drop?: RegExp): Shapes =>
  Object.fromEntries(
    Object.entries(JSON.parse(readFileSync(join(fixtures, file), 'utf8')) as Shapes).filter(
      ([name]) => !drop?.test(name),
    ),
  );

/**
 * BFL's files one by one, as `Kontext.load` takes them; tokenizers are FLUX.1's own, which the demo model has too.
 *
 * @param blocks of each kind; all of them when left out
 */
export function virtualModel(transformer: 'bfloat16' | 'gguf', blocks = Number.POSITIVE_INFINITY) {
  const first = (shapes: Shapes): Shapes =>
    Object.fromEntries(
      Object.entries(shapes).filter(([name]) => !(Number(/blocks?\.(\d+)\./.exec(name)?.[1] ?? 0) >= blocks)),
    );
  const flux = first(shapesOf('flux1-kontext-dev.bfl.json'));
  return {
    transformer:
      transformer === 'gguf'
        ? virtualGguf('flux1-kontext-dev-Q4_0.gguf', flux)
        : virtualSafetensors('flux1-kontext-dev.safetensors', flux),
    vae: virtualSafetensors('ae.safetensors', shapesOf('ae.bfl.json')),
    clip: virtualSafetensors('clip_l.safetensors', shapesOf('clip-vit-large-patch14-text.json', /position_ids/)),
    t5: virtualSafetensors('t5xxl.safetensors', first(shapesOf('t5-v1_1-xxl-encoder.json', /^encoder\.embed_tokens/))),
    clipTokenizer: { vocab: join(demo, 'tokenizer/vocab.json'), merges: join(demo, 'tokenizer/merges.txt') },
    t5Tokenizer: { tokenizerJson: join(demo, 'tokenizer_2/tokenizer.json') },
  };
}
