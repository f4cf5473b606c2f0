// Says what a file is that the browser could not read as a picture, and what to do about it. Loaded when one has failed.

/** The end of a sentence that begins with the file. */
export async function unreadable(blob: Blob): Promise<string> {
  if (blob.size === 0) return 'is empty.';
  const start = new TextDecoder('latin1').decode(await blob.slice(0, 64).arrayBuffer());
  const [, advice] = KINDS.find(([pattern]) => pattern.test(start)) ?? [];
  return advice ?? 'cannot be read as a picture; use PNG, JPEG or WebP.';
}

const KINDS: readonly [start: RegExp, advice: string][] = [
  [
    /^....ftyp(?!.*avi[fs])(hei[cxms]|hev[cxms]|mif1|msf1)/s,
    'is a HEIC photo, which this browser cannot read. Save it as JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible), or open this page in Safari.',
  ],
  [/^....ftyp.*avi[fs]/s, 'is an AVIF picture that this browser cannot read, or a damaged one; use PNG, JPEG or WebP.'],
  [
    /^(II\*\0|MM\0\*|II\+\0|MM\0\+)/,
    'is a TIFF or a camera’s raw file, which browsers cannot read; save it as PNG or JPEG.',
  ],
  [/^....ftyp/s, 'is a video; give a single picture of it.'],
  [/^\xff\xd8\xff/, 'is a damaged JPEG; open it in another program and save it again.'],
  [/^\x89PNG/, 'is a damaged PNG; open it in another program and save it again.'],
  [/^RIFF....WEBP/s, 'is a damaged WebP; open it in another program and save it again.'],
  [/^BM/, 'is a BMP of a kind that this browser cannot read; save it as PNG.'],
  [/^8BPS/, 'is a Photoshop file; save it as PNG.'],
  [/^%PDF/, 'is a PDF; save the page as PNG.'],
  [/^\s*(<\?xml|<svg|<!--)/i, 'is a drawing (SVG), not a picture of pixels; save it as PNG.'],
  [/^\xff\n|^.{4}JXL /s, 'is a JPEG XL picture, which this browser cannot read; save it as PNG or JPEG.'],
];
