// Windows bitmaps of every kind that the decoder takes, written by hand, each with the colours it must come to.

export interface Bitmap {
  name: string;
  bytes: Uint8Array<ArrayBuffer>;
  /** R, G, B of each pixel, from the top left. */
  expected: number[];
}

const [WIDTH, HEIGHT] = [5, 3];
/** 0xRRGGBB. */
const PALETTE = [0x000000, 0xff0000, 0x00ff00, 0x0000ff, 0xffffff, 0x804020];
/** Palette indices from the top left. */
const PICTURE = [1, 2, 3, 4, 5, 0, 1, 0, 1, 0, 5, 5, 5, 2, 3];

const colourAt = (x: number, y: number) => PALETTE[PICTURE[y * WIDTH + x]!]!;
const rgb = (colour: number) => [colour >> 16, (colour >> 8) & 255, colour & 255];

/** All kinds, 5×3 pixels. */
export function bitmaps(): Bitmap[] {
  const exact = PICTURE.flatMap((index) => rgb(PALETTE[index]!));
  const depth = (bits: number, pack: (colour: number) => number) => (x: number, y: number) => ({
    bits,
    value: pack(colourAt(x, y)),
  });
  const bgr = depth(24, (c) => c);
  const fives = ([r, g, b]: number[], green: number) => [r! >> 3, g! >> (8 - green), b! >> 3] as const;
  const to565 = (c: number) => {
    const [r, g, b] = fives(rgb(c), 6);
    return (r << 11) | (g << 5) | b;
  };
  const to555 = (c: number) => {
    const [r, g, b] = fives(rgb(c), 5);
    return (r << 10) | (g << 5) | b;
  };
  const index = (bits: number) => (x: number, y: number) => ({ bits, value: PICTURE[y * WIDTH + x]! % 2 ** bits });
  const scaled = (green: number) =>
    PICTURE.flatMap((i) => {
      const [r, g, b] = fives(rgb(PALETTE[i]!), green);
      return [(r / 31) * 255, (g / (2 ** green - 1)) * 255, (b / 31) * 255].map(Math.round);
    });
  const swapped = (c: number) => ((c & 255) << 16) | (c & 0xff00) | (c >> 16);
  return [
    { name: '24 bits', bytes: bitmap({ rows: rowsOf(bgr) }), expected: exact },
    { name: '24 bits, from the top', bytes: bitmap({ rows: rowsOf(bgr), topDown: true }), expected: exact },
    { name: '24 bits, OS/2', bytes: bitmap({ rows: rowsOf(bgr), core: true }), expected: exact },
    { name: '32 bits', bytes: bitmap({ bits: 32, rows: rowsOf(depth(32, (c) => c)) }), expected: exact },
    {
      name: '32 bits, masks',
      bytes: bitmap({ bits: 32, compression: 3, masks: [0xff, 0xff00, 0xff0000], rows: rowsOf(depth(32, swapped)) }),
      expected: exact,
    },
    { name: '16 bits', bytes: bitmap({ bits: 16, rows: rowsOf(depth(16, to555)) }), expected: scaled(5) },
    {
      name: '16 bits, masks',
      bytes: bitmap({ bits: 16, compression: 3, masks: [0xf800, 0x7e0, 0x1f], rows: rowsOf(depth(16, to565)) }),
      expected: scaled(6),
    },
    { name: '8 bits', bytes: bitmap({ bits: 8, palette: PALETTE, rows: rowsOf(index(8)) }), expected: exact },
    { name: '4 bits', bytes: bitmap({ bits: 4, palette: PALETTE, rows: rowsOf(index(4)) }), expected: exact },
    {
      name: '1 bit',
      bytes: bitmap({ bits: 1, palette: PALETTE.slice(3, 5), rows: rowsOf(index(1)) }),
      expected: PICTURE.flatMap((i) => rgb(PALETTE[3 + (i % 2)]!)),
    },
    {
      name: '8 bits, run lengths',
      bytes: bitmap({ bits: 8, compression: 1, palette: PALETTE, data: runs(8) }),
      expected: exact,
    },
    {
      name: '4 bits, run lengths',
      bytes: bitmap({ bits: 4, compression: 2, palette: PALETTE, data: runs(4) }),
      expected: exact,
    },
  ];
}

/** Rows from the bottom: a literal stretch for those of at least three different pixels, runs of one otherwise. */
function runs(bits: 8 | 4): number[] {
  const data: number[] = [];
  for (let y = HEIGHT - 1; y >= 0; y--) {
    const row = PICTURE.slice(y * WIDTH, (y + 1) * WIDTH);
    if (y === 0) {
      const packed = bits === 8 ? row : [row[0]! * 16 + row[1]!, row[2]! * 16 + row[3]!, row[4]! * 16];
      data.push(0, WIDTH, ...packed, ...(packed.length % 2 === 1 ? [0] : []));
    } else for (const index of row) data.push(1, bits === 8 ? index : index * 17);
    data.push(0, y === 0 ? 1 : 0);
  }
  return data;
}

type Row = { bits: number; value: number }[];

function rowsOf(at: (x: number, y: number) => { bits: number; value: number }): Row[] {
  return Array.from({ length: HEIGHT }, (_, y) => Array.from({ length: WIDTH }, (_, x) => at(x, y)));
}

function bitmap(of: {
  bits?: number;
  compression?: number;
  masks?: number[];
  palette?: number[];
  rows?: Row[];
  data?: number[];
  topDown?: boolean;
  core?: boolean;
}): Uint8Array<ArrayBuffer> {
  const { bits = 24, compression = 0, masks = [], palette = [], rows = [], topDown = false, core = false } = of;
  const data = of.data ?? (topDown ? rows : [...rows].reverse()).flatMap(packRow);
  const headerBytes = core ? 12 : 40;
  const start = 14 + headerBytes + 4 * masks.length + 4 * palette.length;
  const bytes = new Uint8Array(start + data.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x42, 0x4d]);
  view.setUint32(2, bytes.length, true);
  view.setUint32(10, start, true);
  view.setUint32(14, headerBytes, true);
  if (core) {
    view.setUint16(18, WIDTH, true);
    view.setUint16(20, HEIGHT, true);
    view.setUint16(22, 1, true);
    view.setUint16(24, bits, true);
  } else {
    view.setInt32(18, WIDTH, true);
    view.setInt32(22, topDown ? -HEIGHT : HEIGHT, true);
    view.setUint16(26, 1, true);
    view.setUint16(28, bits, true);
    view.setUint32(30, compression, true);
    view.setUint32(46, palette.length, true);
  }
  for (const [i, value] of [...masks, ...palette].entries()) view.setUint32(14 + headerBytes + 4 * i, value, true);
  bytes.set(data, start);
  return bytes;
}

/** Pixels of fewer than 8 bits from the high bit on, others low byte first; rows in multiples of 4 bytes. */
function packRow(row: Row): number[] {
  const bits = row.map(({ bits, value }) => value.toString(2).padStart(bits, '0'));
  const small = row[0]!.bits < 8;
  const bytes = small
    ? (bits.join('').match(/.{1,8}/g) ?? []).map((byte) => Number.parseInt(byte.padEnd(8, '0'), 2))
    : row.flatMap(({ bits, value }) => Array.from({ length: bits / 8 }, (_, i) => (value >>> (8 * i)) & 255));
  return [...bytes, ...Array((4 - (bytes.length % 4)) % 4).fill(0)];
}
