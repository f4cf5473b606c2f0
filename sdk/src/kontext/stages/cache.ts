// Steps that reuse earlier ones: lossy, asked for by name, told in the result. Loaded only when asked for.
// First-block caching decides on the GPU and reads back a few kilobytes; Taylor series follow a fixed plan and read nothing back.
import { meanIn } from '../../../../kernels-codegen/src/models/moments.ts';
import type { Executable } from '../../../../runtime/src/execute/executable.ts';
import { BufferUsage } from '../../../../runtime/src/gpu/flags.ts';
import { TOKEN_CHANNELS, tokenCount } from '../latents.ts';
import type { Parts, ShapeRequest, Work } from '../parts.ts';
import type { CacheOptions, FirstBlockCache, RegionCache, TaylorCache } from '../types.ts';
import {
  type Branch,
  branchCopies,
  denoiseShape,
  portsOf,
  type Velocity,
  type VelocityJob,
  writeScene,
} from '../velocity.ts';
import { sharedPorts } from './shared-ports.ts';

type Make = (
  parts: Parts,
  job: VelocityJob,
  context: readonly Float32Array[],
  branches: readonly Branch[],
  work: Work,
) => Promise<Velocity>;

/** An evaluator with a memory. */
export function cachedVelocity(
  cache: Exclude<CacheOptions, Required<RegionCache>>,
  ...of: Parameters<Make>
): Promise<Velocity> {
  if (cache.kind === 'first-block') return firstBlockVelocity(cache, ...of);
  return cache.lite ? taylorVelocity(cache, ...of) : taylorAttention(cache, ...of);
}

const COPIED = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST;

/**
 * Runs the first block; where what it adds to the picture changed by less than a threshold since the last whole evaluation, what the other
 * blocks added then is added again. Each prompt has its own memory.
 */
async function firstBlockVelocity(
  { threshold }: Required<FirstBlockCache>,
  ...[parts, job, context, branches, work]: Parameters<Make>
): Promise<Velocity> {
  const { hidden } = parts.specs.transformer;
  const bind = (component: `denoise-${string}`, ports?: Record<string, GPUBuffer>) =>
    parts.bind(denoiseShape(component, job) as ShapeRequest, work, ports);
  const first = await bind('denoise-first');
  writeScene(parts, first, job, context);
  first.write('ones', new Float32Array(hidden).fill(1));
  first.write('zeros', new Float32Array(hidden));
  const streams = { txt: first.port('txt'), img: first.port('img'), modulation: first.port('modulation') };
  const rest = await bind('denoise-rest', { ...streams, rope: first.port('rope') });
  const velocity = rest.port('velocity');
  const skip = await bind('denoise-skip', { img: streams.img, modulation: streams.modulation, velocity });
  const memories = await Promise.all(
    branches.map(async () => ({
      residual: await parts.allocate('residual of the first block', first.port('residual').size, COPIED),
      saved: await parts.allocate('what the other blocks add', rest.port('saved').size, COPIED),
      /** Mean magnitude of the residual; absent before the first whole evaluation. */
      size: undefined as number | undefined,
      /** Whether the last evaluation was not whole. */
      reused: false,
    })),
  );
  const mean = async (port: 'change' | 'size') => meanIn(await first.read(port), hidden);
  const copy = (from: GPUBuffer, to: GPUBuffer) => (encoder: GPUCommandEncoder) =>
    encoder.copyBufferToBuffer(from, 0, to, 0, to.size);
  const whole = (to: string, from: GPUBuffer) => ({ from, fromOffset: 0, to, toOffset: 0, bytes: from.size });
  const copiesOf = (branch: 0 | 1, at: number) => [
    ...branchCopies(branches[branch]!, at),
    whole('previous', memories[branch]!.residual),
  ];
  let skipped = 0;
  return {
    latents: first.port('latents'),
    velocity,
    writeLatents: (values) => first.write('latents', values),
    writeControl: (values) => first.write('control', values),
    read: (port) => (port === 'latents' ? first : rest).read(port),
    async run(branch, at, after) {
      const memory = memories[branch]!;
      let ms = await parts.run(first, work, { copies: copiesOf(branch, at) });
      memory.reused = memory.size !== undefined && (await mean('change')) / memory.size <= threshold;
      if (memory.reused) {
        skipped++;
        return ms + (await parts.run(skip, work, { copies: [whole('saved', memory.saved)], ...(after && { after }) }));
      }
      memory.size = await mean('size');
      ms += await parts.run(rest, work, {
        after: (encoder) => {
          copy(first.port('residual'), memory.residual)(encoder);
          copy(rest.port('saved'), memory.saved)(encoder);
          after?.(encoder);
        },
      });
      return ms;
    },
    async locate(branch, at) {
      const { signal } = work;
      const { reused, saved } = memories[branch]!;
      const inFirst = await first.firstUnsound({ copies: copiesOf(branch, at), signal });
      if (inFirst) return inFirst;
      return reused ? skip.firstUnsound({ copies: [whole('saved', saved)], signal }) : rest.firstUnsound({ signal });
    },
    reset() {
      skipped = 0;
      for (const memory of memories) Object.assign(memory, { size: undefined, reused: false });
    },
    get skipped() {
      return skipped;
    },
    async dispose() {
      for (const { residual, saved } of memories) for (const buffer of [residual, saved]) parts.free(buffer);
      for (const component of ['denoise-skip', 'denoise-rest', 'denoise-first'] as const) await parts.unbind(component);
    },
  };
}

/** Which evaluations are whole: all before `start` and from `end` on, between them every `interval`-th, counted from the one after `start`. */
function isWhole({ start, end, interval }: Required<TaylorCache>, k: number): boolean {
  return k < start || k >= end || (k - start - 1) % interval === 0;
}

/** Series of one prompt. */
interface Series {
  factors: GPUBuffer[];
  /** Whole evaluations so far, and which one was the last. */
  known: number;
  last: number;
  k: number;
}

/** The velocity itself is extrapolated: a skipped step costs nothing. */
async function taylorVelocity(
  cache: Required<TaylorCache>,
  ...[parts, job, context, branches, work]: Parameters<Make>
): Promise<Velocity> {
  const program = await parts.bind(denoiseShape('denoise', job) as ShapeRequest, work);
  writeScene(parts, program, job, context);
  const velocity = program.port('velocity');
  const series = await taylorSeries(
    cache,
    parts,
    tokenCount(job.target),
    TOKEN_CHANNELS,
    branches.length,
    work,
    velocity,
    velocity,
  );
  return {
    ...portsOf(program),
    ...series.counters,
    run: (branch, at, after) =>
      series.run(branch, {
        whole: () => parts.run(program, work, { copies: branchCopies(branches[branch]!, at) }),
        predicted: async () => 0,
        after,
      }),
    locate: (branch, at) => program.firstUnsound({ copies: branchCopies(branches[branch]!, at), signal: work.signal }),
    dispose: series.dispose,
    get skipped() {
      return series.counters.skipped;
    },
  };
}

/** The attention of every block is extrapolated, as diffusers does; the rest of the network runs. Much memory. */
async function taylorAttention(
  cache: Required<TaylorCache>,
  ...[parts, job, context, branches, work]: Parameters<Make>
): Promise<Velocity> {
  const { hidden, doubleBlocks, singleBlocks } = parts.specs.transformer;
  const tell = await parts.bind(denoiseShape('denoise-tell', job) as ShapeRequest, work);
  writeScene(parts, tell, job, context);
  const shape = denoiseShape('denoise-given', job) as ShapeRequest;
  const { attended: _, ...ports } = sharedPorts(tell, (await parts.program(shape)).program);
  const given = await parts.bind(shape, work, ports);
  const tokens = job.maxSequenceLength + [job.target, ...job.context].reduce((sum, size) => sum + tokenCount(size), 0);
  const rows = (doubleBlocks + singleBlocks) * tokens;
  const series = await taylorSeries(
    cache,
    parts,
    rows,
    hidden,
    branches.length,
    work,
    tell.port('attended'),
    given.port('attended'),
  );
  const evaluate = (program: Executable, branch: 0 | 1, at: number) =>
    parts.run(program, work, { copies: branchCopies(branches[branch]!, at) });
  return {
    ...portsOf(tell),
    ...series.counters,
    run: (branch, at, after) =>
      series.run(branch, {
        whole: () => evaluate(tell, branch, at),
        predicted: () => evaluate(given, branch, at),
        after,
      }),
    locate: (branch, at) => tell.firstUnsound({ copies: branchCopies(branches[branch]!, at), signal: work.signal }),
    async dispose() {
      await series.dispose();
      for (const component of ['denoise-given', 'denoise-tell'] as const) await parts.unbind(component);
    },
    get skipped() {
      return series.counters.skipped;
    },
  };
}

/**
 * Taylor series of a `[rows, cols]` value over the evaluations of each prompt.
 *
 * @param value where a whole evaluation leaves it
 * @param wanted where a predicted one is to find it
 */
async function taylorSeries(
  cache: Required<TaylorCache>,
  parts: Parts,
  rows: number,
  cols: number,
  prompts: number,
  work: Work,
  value: GPUBuffer,
  wanted: GPUBuffer,
) {
  const update = await parts.bind({ component: 'taylor-update', rows, cols }, work, { value });
  const factors = { f0: update.port('f0'), f1: update.port('f1'), f2: update.port('f2') };
  const predict = await parts.bind({ component: 'taylor-predict', rows, cols }, work, { ...factors, value: wanted });
  const ports = Object.values(factors);
  const all: Series[] = [];
  for (let i = 0; i < prompts; i++) {
    const kept: GPUBuffer[] = [];
    // With one prompt the ports themselves are the memory.
    if (prompts > 1) for (const port of ports) kept.push(await parts.allocate('Taylor factors', port.size, COPIED));
    all.push({ factors: kept, known: 0, last: 0, k: 0 });
  }
  const move = (from: readonly GPUBuffer[], to: readonly GPUBuffer[]) => (encoder: GPUCommandEncoder) => {
    for (const [i, buffer] of from.entries()) encoder.copyBufferToBuffer(buffer, 0, to[i]!, 0, buffer.size);
  };
  const counters = {
    skipped: 0,
    reset() {
      counters.skipped = 0;
      for (const one of all) Object.assign(one, { known: 0, last: 0, k: 0 });
    },
  };
  return {
    counters,
    /** One evaluation: whole and then remembered, or predicted. @returns milliseconds */
    async run(
      branch: 0 | 1,
      of: {
        whole: () => Promise<number>;
        predicted: () => Promise<number>;
        after: ((e: GPUCommandEncoder) => void) | undefined;
      },
    ): Promise<number> {
      const series = all[branch]!;
      const { k } = series;
      series.k++;
      const own = series.factors;
      const before = move(own, ports);
      if (isWhole(cache, k)) {
        let ms = await of.whole();
        const slope = series.known > 0 ? 1 / (k - series.last) : 0;
        const curve = cache.order > 1 && series.known > 1 ? slope : 0;
        update.write('step', Float32Array.of(slope, curve, 0, 0));
        const back = move(own.length > 0 ? ports : [], own);
        ms += await parts.run(update, work, {
          before,
          after: (encoder) => {
            back(encoder);
            of.after?.(encoder);
          },
        });
        Object.assign(series, { known: series.known + 1, last: k });
        return ms;
      }
      counters.skipped++;
      const distance = k - series.last;
      predict.write('step', Float32Array.of(distance, (distance * distance) / 2, 0, 0));
      const ms = await parts.run(predict, work, { before });
      const rest = await of.predicted();
      const { after } = of;
      if (after) {
        const encoder = parts.gpu.device.createCommandEncoder();
        after(encoder);
        parts.gpu.queue.submit([encoder.finish()]);
      }
      return ms + rest;
    },
    async dispose() {
      for (const { factors: kept } of all) for (const buffer of kept) parts.free(buffer);
      for (const component of ['taylor-predict', 'taylor-update'] as const) await parts.unbind(component);
    },
  };
}
