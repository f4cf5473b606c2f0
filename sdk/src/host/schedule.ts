// Typed facade of the sigma schedule and of the logit-normal timestep distribution.
// Checks every argument, so that the WASM below computes and never judges.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { Host } from './module.ts';
import type { TorchGenerator } from './random.ts';

/**
 * How the uniform schedule is moved towards noise, which larger images need (Esser et al. 2024, section 5.3.2):
 *
 * - `'dynamic'`: σ' = e^μ / (e^μ + 1/σ − 1), μ linear in the number of image tokens (FLUX.1 dev and Kontext);
 * - `{ mu }`: the same with μ given;
 * - `{ static }`: σ' = s·σ / (1 + (s − 1)·σ), that is μ = ln s;
 * - `'none'`: σ' = σ (FLUX.1 schnell).
 */
export type Shift = 'dynamic' | 'none' | { readonly mu: number } | { readonly static: number };

export interface ScheduleOptions {
  /** Denoising steps, 1 to 10,000. Needed unless `sigmas` is given. */
  steps?: number;
  /** Tokens of the target image, (width / 16) · (height / 16); reference images do not count. Needed for `'dynamic'`. */
  imageTokens?: number;
  /** Default `'dynamic'`. Applies to `sigmas` too, as in diffusers; pass `'none'` to use them as they are. */
  shift?: Shift;
  /** An own schedule instead of the uniform 1, 1 − 1/n, … 1/n: strictly falling values in (0, 1], without the final 0. */
  sigmas?: readonly number[];
  /** μ at `baseSeqLen` tokens; default 0.5. */
  baseShift?: number;
  /** μ at `maxSeqLen` tokens; default 1.15. */
  maxShift?: number;
  /** Default 256 tokens (256 × 256 pixels). μ is not clamped outside the two. */
  baseSeqLen?: number;
  /** Default 4096 tokens (1024 × 1024 pixels). */
  maxSeqLen?: number;
}

const MAX_STEPS = 10_000;
/** e^μ must be finite and above zero in float32. */
const MAX_MU = 87;

/**
 * The sigmas (= timesteps in [0, 1], share of noise) at which a rectified-flow model is evaluated, and the final 0.
 *
 * Float32 throughout, in the order of operations of diffusers' `FlowMatchEulerDiscreteScheduler` as called by
 * `FluxKontextPipeline`; BFL's `get_schedule` differs from it by at most 1.2e-7. Reference: Esser et al. 2024, "Scaling
 * Rectified Flow Transformers for High-Resolution Image Synthesis".
 *
 * @returns `steps + 1` values, falling from 1 (or the first of `sigmas`, shifted) to exactly 0
 * @throws KontextError `invalid-request` naming the argument that is out of range
 */
export function sigmas(host: Host, options: ScheduleOptions): Float32Array<ArrayBuffer> {
  const own = options.sigmas;
  const count = stepCount(options);
  const shift = resolveShift(host, options);
  host.reset();
  const out = host.scratch(4 * (count + 1));
  if (own) floats(host, out, count).set(own);
  else host.exports.linearSigmas(out, count);
  if (shift?.kind === 'exponential') host.exports.shiftExponential(out, count, shift.mu);
  if (shift?.kind === 'static') host.exports.shiftStatic(out, count, shift.factor);
  const result = floats(host, out, count + 1).slice();
  result[count] = 0;
  return result;
}

/** Parameters of sigmoid(mean + std · normal). */
export interface LogitNormalOptions {
  /** Mean of the logit: 0 favours the middle, positive values the noisy end; default 0. Add ln s to apply a static shift s. */
  mean?: number;
  /** Standard deviation of the logit, above 0; default 1. */
  std?: number;
}

/**
 * Density at timestep `t` of the logit-normal distribution that rectified-flow models are trained with (Esser et al.
 * 2024, equation 19). 0 outside (0, 1).
 *
 * @returns density per unit of t, float64, good to about 15 digits
 * @throws KontextError `invalid-request` when `t` or `mean` is not finite or `std` is not above 0
 */
export function logitNormalDensity(host: Host, t: number, options: LogitNormalOptions = {}): number {
  const { mean, std } = logitNormal(options);
  if (!Number.isFinite(t)) throw invalid(`The timestep must be a finite number, not ${t}.`, { t });
  return host.exports.logitNormalDensity(t, mean, std);
}

/**
 * The timestep below which a share `q` of the logit-normal distribution lies; evenly spaced `q` give a stratified
 * sample. Float64, good to about 15 digits (normal quantile: Wichura 1988, AS 241).
 *
 * @param q share in [0, 1]; 0 gives 0 and 1 gives 1
 * @throws KontextError `invalid-request` when `q` is outside [0, 1], `mean` is not finite or `std` is not above 0
 */
export function logitNormalQuantile(host: Host, q: number, options: LogitNormalOptions = {}): number {
  const { mean, std } = logitNormal(options);
  if (!(q >= 0 && q <= 1)) throw invalid(`A quantile is asked for a share between 0 and 1, not ${q}.`, { q });
  return host.exports.logitNormalQuantile(q, mean, std);
}

/**
 * Draws `count` training timesteps: `sigmoid(torch.normal(mean, std, (count,), generator))`, which is diffusers'
 * `compute_density_for_timestep_sampling('logit_normal', …)`.
 *
 * @returns float32 values in [0, 1], within 1e-6 of PyTorch's
 * @throws KontextError `invalid-request` for a bad `count`, `mean` or `std`; `closed` for a disposed generator
 */
export function logitNormalSample(
  host: Host,
  generator: TorchGenerator,
  count: number,
  options: LogitNormalOptions = {},
): Float32Array<ArrayBuffer> {
  const { mean, std } = logitNormal(options);
  const draws = generator.normal([count], { mean, std });
  host.reset();
  const address = host.push(draws);
  host.exports.sigmoidInPlace(address, count);
  return floats(host, address, count).slice();
}

function stepCount({ steps, sigmas: own }: ScheduleOptions): number {
  if (own) {
    own.forEach((sigma, i) => {
      const before = i === 0 ? Infinity : own[i - 1]!;
      if (!(Math.fround(sigma) > 0 && sigma <= 1 && Math.fround(sigma) < Math.fround(before))) {
        throw invalid(
          `sigmas[${i}] is ${sigma} after ${i === 0 ? 'nothing' : before}: sigmas must fall strictly within (0, 1]. The final 0 is added for you.`,
          { index: i, sigma },
        );
      }
    });
    if (steps !== undefined && steps !== own.length) {
      throw invalid(`steps is ${steps} but ${own.length} sigmas are given. Leave steps out.`, { steps });
    }
  }
  const count = own ? own.length : steps;
  if (count === undefined || !Number.isInteger(count) || count < 1 || count > MAX_STEPS) {
    throw invalid(`A schedule has 1 to ${MAX_STEPS} steps, not ${count}.`, { steps: count });
  }
  return count;
}

type ResolvedShift = { kind: 'exponential'; mu: number } | { kind: 'static'; factor: number } | undefined;

function resolveShift(host: Host, options: ScheduleOptions): ResolvedShift {
  const shift = options.shift ?? 'dynamic';
  if (shift === 'none') return undefined;
  if (typeof shift === 'object' && 'static' in shift) {
    const factor = shift.static;
    if (!(factor >= 1e-6 && factor <= 1e6))
      throw invalid(`A static shift lies between 1e-6 and 1e6, not ${factor}.`, { shift });
    return { kind: 'static', factor };
  }
  const mu = shift === 'dynamic' ? dynamicMu(host, options) : shift.mu;
  if (!(Math.abs(mu) <= MAX_MU)) {
    throw invalid(
      `The shift exponent mu is ${mu}; it must lie between -${MAX_MU} and ${MAX_MU}. Check imageTokens and the shift settings, or pass shift: { mu }.`,
      { mu },
    );
  }
  return { kind: 'exponential', mu };
}

function dynamicMu(host: Host, options: ScheduleOptions): number {
  const { imageTokens, baseShift = 0.5, maxShift = 1.15, baseSeqLen = 256, maxSeqLen = 4096 } = options;
  if (imageTokens === undefined || !Number.isInteger(imageTokens) || imageTokens < 1) {
    throw invalid(
      `A dynamic shift needs imageTokens, the target's (width / 16) · (height / 16), a whole number from 1; it is ${imageTokens}.`,
      { imageTokens },
    );
  }
  if (!(maxSeqLen > baseSeqLen)) {
    throw invalid(`maxSeqLen (${maxSeqLen}) must be above baseSeqLen (${baseSeqLen}).`, { baseSeqLen, maxSeqLen });
  }
  return host.exports.dynamicMu(imageTokens, baseSeqLen, maxSeqLen, baseShift, maxShift);
}

function logitNormal({ mean = 0, std = 1 }: LogitNormalOptions): { mean: number; std: number } {
  if (!Number.isFinite(mean)) throw invalid(`The mean of the logit must be a finite number, not ${mean}.`, { mean });
  if (!(std > 0 && std < Infinity))
    throw invalid(`The std of the logit must be above 0 and finite, not ${std}.`, { std });
  return { mean, std };
}

function floats(host: Host, address: number, count: number): Float32Array {
  return new Float32Array(host.bytes.buffer, address, count);
}

function invalid(message: string, details: Record<string, unknown>): KontextError {
  return new KontextError('invalid-request', message, details);
}
