// Measures the shapes of some programs within a time, those with the most work first, and makes a profile of what won.
import type { CompileRequest } from '../../../kernels-codegen/src/compile.ts';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { tunableShapes } from '../../../kernels-codegen/src/tune/shapes.ts';
import { throwIfAborted } from '../../../runtime/src/errors.ts';
import type { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import { measureShape, type ShapeResult } from './measure.ts';
import { TUNING_SCHEMA, type TuningProfile } from './profile.ts';

export interface TuneOptions {
  target: TargetProfile;
  /** Milliseconds in all; a measurement that has begun is finished. */
  budgetMs: number;
  /** Told of each shape when it is done. */
  onShape?(result: ShapeResult, done: number, total: number): void;
  signal?: AbortSignal;
}

export interface Tuning {
  results: ShapeResult[];
  /** Shapes that the time did not reach. */
  left: number;
}

/** Operations a second that a shape is expected to run at before anything was measured: low, so as to begin with what is sure to end. */
const FIRST_RATE = { software: 2e9, gpu: 2e11 };
/** Runs that a shape takes at least: plain, the estimate's choice, and rounds of two. */
const FEWEST_RUNS = 24;

/** @throws KontextError as {@link measureShape}; `aborted` */
export async function tune(
  gpu: KontextDevice,
  requests: readonly CompileRequest[],
  { target, budgetMs, onShape, signal }: TuneOptions,
): Promise<Tuning> {
  const shapes = tunableShapes(requests);
  const started = performance.now();
  const results: ShapeResult[] = [];
  let rate = target.software ? FIRST_RATE.software : FIRST_RATE.gpu;
  let remainingWork = shapes.reduce((sum, shape) => sum + weightOf(shape), 0);
  let left = 0;
  for (const shape of shapes) {
    throwIfAborted(signal);
    const remaining = budgetMs - (performance.now() - started);
    // What its share of the work still to come is worth.
    const share = remaining * (weightOf(shape) / remainingWork);
    remainingWork -= weightOf(shape);
    if (remaining <= 0 || (FEWEST_RUNS * shape.flops * 1000) / rate > remaining) {
      left++;
      continue;
    }
    const result = await measureShape(gpu, shape, {
      target,
      budgetMs: share,
      pause: async () => throwIfAborted(signal),
    });
    rate = Math.max(rate, (shape.flops * 1000) / result.estimateMs);
    results.push(result);
    onShape?.(result, results.length + left, shapes.length);
  }
  return { results, left };
}

/** The square root of a shape's work: small shapes need time to measure too. */
const weightOf = ({ flops, dispatches }: { flops: number; dispatches: number }): number =>
  Math.sqrt(flops * dispatches);

/** What won, as a profile. */
export function profileOf(
  results: readonly ShapeResult[],
  { vendor, architecture, device, description }: AdapterReport,
): TuningProfile {
  const tuned: Record<string, Record<string, Readonly<Record<string, unknown>>>> = {};
  const gains: TuningProfile['gains'] = [];
  for (const { shape, estimateMs, best } of results) {
    if (!best) continue;
    tuned[shape.family] = { ...tuned[shape.family], [shape.key]: best.schedule };
    gains.push({ family: shape.family, shape: shape.key, flops: shape.flops, estimateMs, tunedMs: best.milliseconds });
  }
  return { schema: TUNING_SCHEMA, adapter: { vendor, architecture, device, description }, tuned, gains };
}

/** Time of all measured dispatches with the estimate's choices over that with the winners. */
export function gainOf(results: readonly ShapeResult[]): number {
  const sum = (time: (r: ShapeResult) => number) => results.reduce((all, r) => all + r.shape.dispatches * time(r), 0);
  return sum((r) => r.estimateMs) / sum((r) => r.best?.milliseconds ?? r.estimateMs);
}
