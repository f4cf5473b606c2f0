// A 12-megapixel photo to Kontext's 4:3 size with Lanczos: WASM beside plain TypeScript of the same algorithm.
// Run with `npm run bench:resize`; fails when the two do not give the same bytes.
import { loadHost } from '../../sdk/src/host/module.ts';
import { resize } from '../../sdk/src/host/resize.ts';
import { medianTimes } from '../support/median-time.ts';
import { plainLanczos } from '../support/plain-resize.ts';
import { PHOTO_HEIGHT, PHOTO_WIDTH, syntheticPhoto } from '../support/synthetic-photo.ts';

const [outWidth, outHeight] = [1184, 880];
const host = await loadHost();
const rgb = syntheticPhoto();
const rgba = new Uint8Array(PHOTO_WIDTH * PHOTO_HEIGHT * 4).fill(255);
for (let i = 0; i < PHOTO_WIDTH * PHOTO_HEIGHT; i++) {
  for (let c = 0; c < 3; c++) rgba[4 * i + c] = rgb[3 * i + c]!;
}

function wasm(data: Uint8Array, channels: 3 | 4): Uint8Array {
  return resize(host, { data, width: PHOTO_WIDTH, height: PHOTO_HEIGHT, channels }, outWidth, outHeight).data;
}

for (const [channels, data] of [[3, rgb] as const, [4, rgba] as const]) {
  const plain = () => plainLanczos(data, PHOTO_WIDTH, PHOTO_HEIGHT, channels, outWidth, outHeight);
  const expected = plain();
  if (wasm(data, channels).some((byte, i) => byte !== expected[i])) throw new Error('WASM and plain TypeScript differ');
  console.log(`Lanczos ${PHOTO_WIDTH} × ${PHOTO_HEIGHT} to ${outWidth} × ${outHeight}, ${channels} channels`);
  const times = medianTimes({ WASM: () => void wasm(data, channels), 'plain TypeScript': () => void plain() }, 3);
  console.log(`  WASM is ${(times['plain TypeScript']! / times.WASM!).toFixed(1)} times as fast`);
}
console.log(`WASM memory: ${host.exports.memory.buffer.byteLength / 1024} KiB`);
