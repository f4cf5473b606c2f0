// Which tensors lie in a range of a file, as far as its own header still tells.
import type { ByteSource } from '../../../runtime/src/weights/bytes.ts';
import { tensorsBetween } from '../../../runtime/src/weights/integrity/damage.ts';

/** Headers beyond this are damaged, or no safetensors' at all. */
const MAX_HEADER_BYTES = 10_000_000;

/** Empty for files without tensors, or whose header is damaged itself. */
export async function tensorNamesAt(source: ByteSource, start: number, end: number): Promise<string[]> {
  if (source.size < 8) return [];
  const length = Number(new DataView((await source.read(0, 8)).buffer).getBigUint64(0, true));
  if (length > Math.min(MAX_HEADER_BYTES, source.size - 8)) return [];
  const text = new TextDecoder().decode(await source.read(8, 8 + length));
  try {
    const header = JSON.parse(text) as Record<string, { data_offsets?: [number, number] }>;
    const placed = Object.entries(header).flatMap(([name, { data_offsets: at }]) =>
      at ? [{ name, offset: 8 + length + at[0], bytes: at[1] - at[0] }] : [],
    );
    return tensorsBetween(placed, start, end);
  } catch {
    return [];
  }
}
