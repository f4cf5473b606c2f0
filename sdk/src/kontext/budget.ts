// An amount of memory in words, and the choice of residency and quantisation that fits into it.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { MemoryMode, Quantization } from './options.ts';

const UNITS: Record<string, number> = { MB: 1e6, GB: 1e9, MiB: 2 ** 20, GiB: 2 ** 30 };

/** Bytes of `8GB`, `900 MB`, `7.5GiB`, or a number of bytes; undefined for anything else. */
export function budgetBytes(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isFinite(value) && value > 0 ? value : undefined;
  const [, amount, unit] = /^(\d+(?:\.\d+)?)\s*([MG]i?B)$/i.exec(typeof value === 'string' ? value.trim() : '') ?? [];
  if (amount === undefined) return undefined;
  const known = Object.keys(UNITS).find((name) => name.toLowerCase() === unit!.toLowerCase())!;
  const bytes = Number(amount) * UNITS[known]!;
  return bytes > 0 ? bytes : undefined;
}

/** What a load can be made of. */
export interface Setting {
  /** Which parts stay on the GPU. */
  memory: MemoryMode;
  /** How large matrices are stored. */
  quantization: Quantization;
}

/**
 * All settings, the best first. Keeping a part loaded saves seconds an edit; q8 cannot be seen; q4 can; streaming moves the whole
 * transformer in every step.
 */
export function settings(quantization: Quantization, free: boolean): Setting[] {
  const finer: Quantization[] = free ? [quantization, 'q8', 'q4'] : [quantization];
  return [
    { memory: 'resident', quantization },
    { memory: 'phased', quantization },
    ...finer.slice(1).map((q): Setting => ({ memory: 'phased', quantization: q })),
    ...finer.map((q): Setting => ({ memory: 'streamed', quantization: q })),
  ];
}

/** The first of the plans that fits. @throws KontextError `out-of-memory` naming the smallest amount that would do */
export function fitting<T extends { gpuPeakBytes: number } & Setting>(
  plans: readonly T[],
  budget: number,
  what: string,
): T {
  const found = plans.find(({ gpuPeakBytes }) => gpuPeakBytes <= budget);
  if (found) return found;
  const smallest = plans.reduce((a, b) => (b.gpuPeakBytes < a.gpuPeakBytes ? b : a));
  // Rounded up, or the number named would itself be refused.
  const gb = (bytes: number) => `${(Math.ceil(bytes / 1e7) / 100).toFixed(2)}GB`;
  throw new KontextError(
    'out-of-memory',
    `${what} needs at least ${gb(smallest.gpuPeakBytes)} on the GPU (memory "${smallest.memory}", quantization "${smallest.quantization}"); ` +
      `the budget is ${gb(budget)}. Give memory: '${gb(smallest.gpuPeakBytes)}', or plan for a smaller size.`,
    { neededBytes: smallest.gpuPeakBytes, budgetBytes: budget },
  );
}
