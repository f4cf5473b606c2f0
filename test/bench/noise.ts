// Noise of a 1024 × 1024 picture (16 × 128 × 128 values): WASM beside plain TypeScript of the same algorithm.
// Run with `npm run bench:noise`; fails when the two do not give the same bits.
import { loadHost } from '../../sdk/src/host/module.ts';
import { TorchGenerator } from '../../sdk/src/host/random.ts';
import { medianTimes } from '../support/median-time.ts';
import { plainRandn } from '../support/plain-noise.ts';

const shape = [1, 16, 128, 128];
const count = 16 * 128 * 128;
const host = await loadHost();

function wasm(dtype: 'float32' | 'bfloat16'): Float32Array {
  const generator = TorchGenerator.create(host, 42);
  const values = generator.randn(shape, dtype);
  generator.dispose();
  return values;
}

const plain = new Uint32Array(plainRandn(42, count).buffer);
const ours = new Uint32Array(wasm('float32').buffer);
if (ours.some((bits, i) => bits !== plain[i])) throw new Error('WASM and plain TypeScript differ');

console.log(`noise, ${count} values`);
const times = medianTimes({
  'WASM float32': () => void wasm('float32'),
  'WASM bfloat16': () => void wasm('bfloat16'),
  'plain TypeScript': () => void plainRandn(42, count),
});
console.log(`  float32 is ${(times['plain TypeScript']! / times['WASM float32']!).toFixed(1)} times as fast`);
