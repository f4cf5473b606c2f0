// A 12-megapixel image from a formula: smooth ramps, moiré and noise, the same bytes that the Pillow fixture was made from.
// Used where a real-size photo matters and storing one does not.
export const PHOTO_WIDTH = 4000;
export const PHOTO_HEIGHT = 3000;

/** `PHOTO_WIDTH × PHOTO_HEIGHT` pixels, 3 channels, rows packed. See `test/fixtures/image-preprocess/pillow_photo.json`. */
export function syntheticPhoto(): Uint8Array<ArrayBuffer> {
  const rowBytes = PHOTO_WIDTH * 3;
  const pixels = new Uint8Array(rowBytes * PHOTO_HEIGHT);
  for (let y = 0; y < PHOTO_HEIGHT; y++) {
    for (let i = 0; i < rowBytes; i++) {
      const smooth = (i * 7 + y * 13 + ((i * y) >> 9)) & 255;
      // Only bits 13 to 17 of the product matter, so 32-bit wrapping is harmless.
      const noise = ((Math.imul(i, -1640531535) + y * 40503) >>> 13) & 31;
      pixels[y * rowBytes + i] = smooth ^ noise;
    }
  }
  return pixels;
}
