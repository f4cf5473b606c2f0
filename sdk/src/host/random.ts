// Typed facade of torch.Generator('cpu'): the same seed gives the same noise as the reference pipelines.
// Owns the generator's memory in the WASM module, and refuses what PyTorch would refuse.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { Host } from './module.ts';

/** Options of {@link TorchGenerator.normal}. */
export interface NormalOptions {
  /** Default 0. */
  mean?: number;
  /** Standard deviation, 0 or more; default 1. */
  std?: number;
  /** `'bfloat16'` gives the values that a bfloat16 tensor would hold; the array is float32 all the same. */
  dtype?: 'float32' | 'bfloat16';
}

/** What `torch.Generator.manual_seed` takes. */
const MIN_SEED = -(2n ** 63n);
const MAX_SEED = 2n ** 64n - 1n;
/** 1 GiB of float32: beyond any latent, and within what a WASM memory can give. */
const MAX_VALUES = 2 ** 28;

/**
 * `torch.Generator('cpu')`: Mersenne Twister (Matsumoto & Nishimura 1998) and Box-Muller (1958), with PyTorch's order of
 * draws and, from 16 values on, its float32 arithmetic. The state moves on from call to call as PyTorch's does.
 *
 * Agrees with PyTorch 2.x on x86 with AVX2 to the last bit (at most one unit in the last place, about once in 2^30
 * operations). PyTorch itself differs by a few units between processors.
 */
export class TorchGenerator {
  readonly #host: Host;
  #address: number;

  private constructor(host: Host, address: number) {
    this.#host = host;
    this.#address = address;
  }

  /**
   * `torch.Generator('cpu').manual_seed(seed)`.
   *
   * @param seed −2^63 … 2^64 − 1, negative ones counting from 2^64 down. Only the low 32 bits matter, as in PyTorch.
   *   A number must be a safe integer: larger seeds are bigints.
   * @throws KontextError `invalid-request` for any other seed; `out-of-memory` when the module's memory cannot grow
   */
  static create(host: Host, seed: bigint | number): TorchGenerator {
    if (typeof seed !== 'bigint' && !Number.isSafeInteger(seed)) {
      throw invalid(`A seed is a whole number; ${seed} is not, or is too large to be exact. Pass a bigint.`, { seed });
    }
    const wide = BigInt(seed);
    if (wide < MIN_SEED || wide > MAX_SEED) {
      throw invalid(`A seed lies between -2^63 and 2^64 - 1; ${wide} does not.`, { seed: String(wide) });
    }
    const address = host.keep(new Uint8Array(host.exports.generatorBytes()));
    host.exports.generatorSeed(address, Number(BigInt.asIntN(32, wide)));
    return new TorchGenerator(host, address);
  }

  /**
   * `torch.randn(shape, generator=…, dtype=…)`.
   *
   * @param shape whole numbers from 0; row-major. Below 16 values in all PyTorch draws one at a time and may keep half a
   *   pair for the next small draw; so two draws of 8 are not one of 16
   * @throws KontextError `invalid-request` for a shape that is no shape or above 2^28 values; `closed` after {@link dispose}
   */
  randn(shape: readonly number[], dtype: 'float32' | 'bfloat16' = 'float32'): Float32Array<ArrayBuffer> {
    return this.normal(shape, { dtype });
  }

  /**
   * `torch.normal(mean, std, shape, generator=…)`; see {@link randn}.
   *
   * @throws KontextError as {@link randn}; `invalid-request` also for a mean or std that is not finite, or a negative std
   */
  normal(shape: readonly number[], options: NormalOptions = {}): Float32Array<ArrayBuffer> {
    const { mean = 0, std = 1, dtype = 'float32' } = options;
    const count = valueCount(shape);
    if (!Number.isFinite(mean)) throw invalid(`The mean must be a finite number, not ${mean}.`, { mean });
    if (!(std >= 0 && std < Infinity)) throw invalid(`The std must be finite and not negative, not ${std}.`, { std });
    if (dtype !== 'float32' && dtype !== 'bfloat16') {
      throw invalid(`Noise is drawn as float32 or bfloat16, not ${dtype}.`, { dtype });
    }
    if (this.#address === 0) throw new KontextError('closed', 'This generator was disposed. Create another one.');
    const host = this.#host;
    host.reset();
    const out = host.scratch(4 * count);
    host.exports.generatorNormal(this.#address, out, count, mean, std, dtype === 'bfloat16' ? 1 : 0);
    return new Float32Array(host.bytes.buffer, out, count).slice();
  }

  /** Gives the generator's 2.5 KB inside the WASM memory back. May be called twice. */
  dispose(): void {
    if (this.#address === 0) return;
    this.#host.release(this.#address);
    this.#address = 0;
  }
}

function valueCount(shape: readonly number[]): number {
  let count = 1;
  for (const size of shape) {
    if (!Number.isInteger(size) || size < 0) {
      throw invalid(`A shape holds whole numbers from 0; [${shape.join(', ')}] does not.`, { shape: [...shape] });
    }
    count *= size;
  }
  if (count > MAX_VALUES) {
    throw invalid(`[${shape.join(', ')}] has ${count} values; one draw gives at most ${MAX_VALUES}. Draw in parts.`, {
      shape: [...shape],
    });
  }
  return count;
}

function invalid(message: string, details: Record<string, unknown>): KontextError {
  return new KontextError('invalid-request', message, details);
}
