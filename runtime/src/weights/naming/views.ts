// A checkpoint under other names: tensors joined, cut and reordered by byte ranges, at no cost of memory.

import { KontextError } from '../../errors.ts';
import { describeTensor, type SourceTensor, sourceTensor, type WeightSource } from '../source.ts';

/** A run of one file tensor's bytes inside a tensor of the view. */
interface Part {
  name: string;
  start: number;
  end: number;
}

/** How a tensor of the view is made from tensors of the file, before sizes are known. */
export interface Target {
  name: string;
  /** Concatenated along axis 0. */
  from: string[];
  /** The second half of the rows comes first. */
  swapHalves?: boolean;
  /** A linear shown as a 1×1 convolution. */
  conv1x1?: boolean;
}

/** One tensor of several, one below the other: of one type if they agree, else of parts. */
function joined(files: readonly SourceTensor[], swapHalves: boolean): SourceTensor {
  const first = files[0]!;
  if (files.length === 1 && !swapHalves) return plainTensor(first);
  const rows = files.reduce((sum, file) => sum + file.shape[0]!, 0);
  const shape = [rows, ...first.shape.slice(1)];
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  if (files.some(({ dtype }) => dtype !== first.dtype)) {
    const dtype = [...new Set(files.map((file) => file.dtype))].join(', ');
    return {
      dtype,
      shape,
      bytes,
      parts: files.map(plainTensor),
    };
  }
  const { dtype, type } = first;
  return { dtype, ...(type && { type }), shape, bytes, ...scalesOf(files, rows, swapHalves) };
}

/** Without its name and its place in a file, which are not the view's. */
function plainTensor({ dtype, type, shape, bytes, scales, parts }: SourceTensor): SourceTensor {
  return { dtype, ...(type && { type }), shape, bytes, ...(scales && { scales }), ...(parts && { parts }) };
}

/** Scales of joined tensors: one where all agree, else one for each row. */
function scalesOf(files: readonly SourceTensor[], rows: number, swapHalves: boolean): Pick<SourceTensor, 'scales'> {
  const [first] = files;
  if (files.every(({ scales }) => scales === undefined)) return {};
  if (files.every(({ scales }) => scales?.length === 1 && scales[0] === first!.scales?.[0]))
    return { scales: first!.scales! };
  const scales = new Float32Array(rows);
  let row = 0;
  for (const file of files) {
    const count = file.shape[0]!;
    for (let i = 0; i < count; i++) scales[row + i] = file.scales?.[file.scales.length === 1 ? 0 : i] ?? 1;
    row += count;
  }
  return { scales: swapHalves ? Float32Array.from(scales, (_, i) => scales[(i + rows / 2) % rows]!) : scales };
}

export function renamed(source: WeightSource, targets: Target[]): WeightSource {
  const tensors = new Map<string, SourceTensor>();
  const parts = new Map<string, Part[]>();
  for (const target of targets) {
    const files = target.from.map((name) => ({ name, ...sourceTensor(source, name) }));
    const first = files[0]!;
    const rest = first.shape.slice(1);
    for (const file of files) {
      if (files.length === 1 || (file.shape.slice(1).join() === rest.join() && file.shape.length > 0)) continue;
      throw new KontextError(
        'weights-invalid',
        `${source.label}: "${file.name}" (${describeTensor(file)}) does not join "${first.name}" ` +
          `(${describeTensor(first)}) to "${target.name}".`,
        { tensor: file.name, file: source.label },
      );
    }
    tensors.set(target.name, {
      ...joined(files, Boolean(target.swapHalves)),
      ...(target.conv1x1 && { shape: [...first.shape, 1, 1] }),
    });
    const half = first.bytes / 2;
    parts.set(
      target.name,
      target.swapHalves
        ? [
            { name: first.name, start: half, end: first.bytes },
            { name: first.name, start: 0, end: half },
          ]
        : files.map((file) => ({ name: file.name, start: 0, end: file.bytes })),
    );
  }
  const view: WeightSource = {
    label: source.label,
    tensors,
    metadata: source.metadata ?? {},
    async read(name, start, end, signal) {
      const { bytes } = sourceTensor(view, name);
      if (start < 0 || end < start || end > bytes)
        throw new RangeError(`${name}: bytes ${start} to ${end} of ${bytes}`);
      return readParts(source, parts.get(name)!, start, end, signal);
    },
    close: () => source.close(),
  };
  return view;
}

async function readParts(
  source: WeightSource,
  parts: Part[],
  start: number,
  end: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: { at: number; part: Part; from: number; to: number }[] = [];
  let partStart = 0;
  for (const part of parts) {
    const partEnd = partStart + part.end - part.start;
    const from = Math.max(start, partStart);
    const to = Math.min(end, partEnd);
    if (from < to) {
      pieces.push({ at: from - start, part, from: part.start + from - partStart, to: part.start + to - partStart });
    }
    partStart = partEnd;
  }
  if (pieces.length === 1) return source.read(pieces[0]!.part.name, pieces[0]!.from, pieces[0]!.to, signal);
  const bytes = new Uint8Array(end - start);
  for (const { at, part, from, to } of pieces) bytes.set(await source.read(part.name, from, to, signal), at);
  return bytes;
}
