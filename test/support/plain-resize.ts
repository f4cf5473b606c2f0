// Pillow's Lanczos in plain TypeScript: two whole passes over typed arrays, horizontal first.
// The yardstick of the resize bench, written the way Pillow itself works.

/** Resamples packed 8-bit pixels; RGBA is not premultiplied here. Both sides must change. */
export function plainLanczos(
  source: Uint8Array,
  width: number,
  height: number,
  channels: number,
  outWidth: number,
  outHeight: number,
): Uint8Array<ArrayBuffer> {
  const across = taps(width, outWidth);
  const between = new Uint8Array(outWidth * height * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < outWidth; x++) {
      const first = across.first[x]!;
      const count = across.count[x]!;
      for (let c = 0; c < channels; c++) {
        let sum = 1 << 21;
        let at = (y * width + first) * channels + c;
        for (let t = 0; t < count; t++, at += channels) sum += source[at]! * across.weights[x * across.stride + t]!;
        between[(y * outWidth + x) * channels + c] = clamp(sum >> 22);
      }
    }
  }
  const down = taps(height, outHeight);
  const row = outWidth * channels;
  const out = new Uint8Array(row * outHeight);
  for (let y = 0; y < outHeight; y++) {
    const first = down.first[y]!;
    const count = down.count[y]!;
    for (let i = 0; i < row; i++) {
      let sum = 1 << 21;
      for (let t = 0; t < count; t++) sum += between[(first + t) * row + i]! * down.weights[y * down.stride + t]!;
      out[y * row + i] = clamp(sum >> 22);
    }
  }
  return out;
}

function taps(size: number, outSize: number) {
  const scale = size / outSize;
  const stretch = Math.max(scale, 1);
  const support = 3 * stretch;
  const stride = Math.ceil(support) * 2 + 1;
  const weights = new Int32Array(outSize * stride);
  const first = new Int32Array(outSize);
  const count = new Int32Array(outSize);
  for (let i = 0; i < outSize; i++) {
    const center = (i + 0.5) * scale;
    first[i] = Math.max(0, Math.trunc(center - support + 0.5));
    count[i] = Math.min(size, Math.trunc(center + support + 0.5)) - first[i]!;
    const values = Array.from({ length: count[i]! }, (_, t) => lanczos((t + first[i]! - center + 0.5) / stretch));
    const total = values.reduce((sum, value) => sum + value, 0);
    values.forEach((value, t) => {
      weights[i * stride + t] = Math.trunc((value / total) * (1 << 22) + (value < 0 ? -0.5 : 0.5));
    });
  }
  return { first, count, weights, stride };
}

function lanczos(x: number): number {
  return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

function clamp(value: number): number {
  return Math.min(255, Math.max(0, value));
}
