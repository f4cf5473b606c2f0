// The picture formats that are read in Node, by the decoder's name for each, with the endings their files have.
// Drawings and documents (SVG, PDF) are not among them: they can pull in other files.

/** Endings in lower case with their dot. */
export const RASTER_FORMATS: Readonly<Record<string, readonly string[]>> = {
  png: ['.png'],
  jpeg: ['.jpg', '.jpeg'],
  webp: ['.webp'],
  gif: ['.gif'],
  tiff: ['.tif', '.tiff'],
  avif: ['.avif'],
  heif: ['.heic', '.heif'],
  bmp: ['.bmp'],
};

/** @param format as a decoder calls it */
export function isRaster(format: string | undefined): boolean {
  return format !== undefined && Object.hasOwn(RASTER_FORMATS, format);
}
