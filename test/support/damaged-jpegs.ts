// JPEG files that something happened to on their way: what phones, mail and broken downloads leave.
import sharp from 'sharp';

/** Copies of one photo, 96×64, by what is wrong with each. */
export async function damagedJpegs(): Promise<Record<string, Uint8Array<ArrayBuffer>>> {
  const [width, height] = [96, 64];
  // Smooth, so that a level here and there is all that two decoders may differ by.
  const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
    return 128 + 100 * Math.sin((x * ((i % 3) + 1)) / 17 + y / 11);
  });
  const raw = { width, height, channels: 3 as const };
  const whole = new Uint8Array(await sharp(pixels, { raw }).jpeg({ quality: 90 }).toBuffer());
  const scan = scanStart(whole);
  const changed = (change: (bytes: Uint8Array) => void) => {
    const copy = whole.slice();
    change(copy);
    return copy;
  };
  const middle = Math.floor((scan + whole.length) / 2);
  return {
    whole,
    'without its end mark': whole.slice(0, -2),
    'with bytes after its end': joined(whole, new Uint8Array(300).fill(7)),
    'one bit of the scan flipped': changed((bytes) => (bytes[middle]! ^= 1)),
    'sixteen bytes of the scan zero': changed((bytes) => bytes.fill(0, middle, middle + 16)),
    'a stray byte before the scan': joined(whole.subarray(0, scan - 14), Uint8Array.of(0), whole.subarray(scan - 14)),
    'half of the scan gone': whole.slice(0, middle),
    'a twentieth of the scan gone': whole.slice(0, whole.length - Math.floor((whole.length - scan) / 20)),
    'only its header': whole.slice(0, scan),
  };
}

/** The first byte after the scan's header. */
function scanStart(bytes: Uint8Array): number {
  const marker = bytes.findIndex((byte, i) => byte === 0xff && bytes[i + 1] === 0xda);
  return marker + 2 + ((bytes[marker + 2]! << 8) | bytes[marker + 3]!);
}

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
