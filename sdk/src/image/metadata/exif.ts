// EXIF: the block in which JPEG and WebP files keep text. A comment that other programs read, and beside it our own JSON.
// A TIFF file of two directories without a picture; read with every offset and count held to the bytes that are there.

/** Texts of a block. */
export interface ExifTexts {
  /** `UserComment`: what other programs show. */
  comment?: string;
  /** `MakerNote`, the place for data of the program that made the file. */
  own?: string;
}

const SOFTWARE = 0x0131;
const EXIF_DIRECTORY = 0x8769;
const MAKER_NOTE = 0x927c;
const USER_COMMENT = 0x9286;
const ASCII = 2;
const LONG = 4;
const UNDEFINED = 7;
const NAME = 'kontext-webgpu\0';

/** A block with these texts. @see Exif 2.32, sections 4.6.2 and 4.6.5 */
export function writeExif({ comment, own }: ExifTexts): Uint8Array<ArrayBuffer> {
  const entries: Entry[] = [];
  const bytes = new TextEncoder();
  if (own !== undefined) entries.push({ tag: MAKER_NOTE, type: UNDEFINED, data: bytes.encode(NAME + own) });
  if (comment !== undefined) entries.push({ tag: USER_COMMENT, type: UNDEFINED, data: unicode(comment) });
  const first: Entry[] = [
    { tag: SOFTWARE, type: ASCII, data: bytes.encode(NAME) },
    { tag: EXIF_DIRECTORY, type: LONG, data: new Uint8Array(4) },
  ];
  const start = 8 + sizeOf(first);
  new DataView(first[1]!.data.buffer).setUint32(0, start, true);
  const block = new Uint8Array(start + sizeOf(entries));
  block.set([0x49, 0x49, 42, 0, 8, 0, 0, 0]);
  writeDirectory(block, 8, first);
  writeDirectory(block, start, entries);
  return block;
}

/** The texts of a block; nothing where it is damaged: a picture must not fail for its comment. */
export function readExif(block: Uint8Array): ExifTexts {
  const little = block[0] === 0x49;
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  if (block.length < 8 || view.getUint16(2, little) !== 42) return {};
  const pointer = find(view, view.getUint32(4, little), EXIF_DIRECTORY, little);
  if (pointer?.length !== 4) return {};
  const directory = new DataView(pointer.buffer, pointer.byteOffset).getUint32(0, little);
  const comment = find(view, directory, USER_COMMENT, little);
  const note = find(view, directory, MAKER_NOTE, little);
  const own = note && new TextDecoder().decode(note);
  return {
    ...(comment && { comment: commentOf(comment, little) }),
    ...(own?.startsWith(NAME) && { own: own.slice(NAME.length) }),
  };
}

interface Entry {
  tag: number;
  type: number;
  data: Uint8Array<ArrayBuffer>;
}

/** Bytes of a directory and of the data that does not fit into it. */
function sizeOf(entries: readonly Entry[]): number {
  return entries.reduce((sum, { data }) => sum + (data.length > 4 ? even(data.length) : 0), 6 + 12 * entries.length);
}

function writeDirectory(block: Uint8Array, at: number, entries: readonly Entry[]): void {
  const view = new DataView(block.buffer);
  view.setUint16(at, entries.length, true);
  let free = at + 6 + 12 * entries.length;
  for (const [i, { tag, type, data }] of entries.entries()) {
    const entry = at + 2 + 12 * i;
    view.setUint16(entry, tag, true);
    view.setUint16(entry + 2, type, true);
    view.setUint32(entry + 4, type === LONG ? data.length / 4 : data.length, true);
    if (data.length > 4) view.setUint32(entry + 8, free, true);
    block.set(data, data.length > 4 ? free : entry + 8);
    if (data.length > 4) free += even(data.length);
  }
}

const even = (length: number): number => length + (length % 2);

/** The bytes of a tag whose elements are bytes, or one long; undefined when it is not there or not within the block. */
function find(view: DataView, at: number, wanted: number, little: boolean): Uint8Array | undefined {
  if (at + 2 > view.byteLength) return undefined;
  const count = view.getUint16(at, little);
  for (let entry = at + 2; entry < at + 2 + 12 * count && entry + 12 <= view.byteLength; entry += 12) {
    if (view.getUint16(entry, little) !== wanted) continue;
    const length = view.getUint32(entry + 4, little) * (view.getUint16(entry + 2, little) === LONG ? 4 : 1);
    const start = length > 4 ? view.getUint32(entry + 8, little) : entry + 8;
    if (start + length > view.byteLength) return undefined;
    return new Uint8Array(view.buffer, view.byteOffset + start, length);
  }
  return undefined;
}

/** UTF-16 with the high byte first, as the programs write it whose files these are read beside. */
function unicode(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8 + 2 * text.length);
  bytes.set(new TextEncoder().encode('UNICODE\0'));
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < text.length; i++) view.setUint16(8 + 2 * i, text.charCodeAt(i));
  return bytes;
}

function commentOf(bytes: Uint8Array, little: boolean): string {
  const code = new TextDecoder('latin1').decode(bytes.subarray(0, 8));
  const rest = bytes.subarray(8);
  if (code !== 'UNICODE\0') return new TextDecoder().decode(rest).replace(/\0+$/, '');
  // Some follow the block's byte order, some never do: the half that is mostly zero is the high one.
  let [even, odd] = [0, 0];
  for (let i = 0; i + 1 < rest.length; i += 2) {
    if (rest[i] === 0) even++;
    if (rest[i + 1] === 0) odd++;
  }
  const low = even === odd ? little : odd > even;
  return new TextDecoder(low ? 'utf-16le' : 'utf-16be').decode(rest);
}
