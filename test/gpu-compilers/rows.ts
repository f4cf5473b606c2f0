// Turns the log of one GPU's compiler into rows: one a kernel, with registers, spills, occupancy and the model's verdict.

import { parseAco } from './aco.ts';
import { parseAgx } from './agx.ts';
import { mixOf } from './costs.ts';
import { parseIr3 } from './ir3.ts';
import type { Compiled } from './listing.ts';
import type { Mark, MarkEnd } from './marks.ts';
import { parseNak } from './nak.ts';
import { simulate } from './simulate.ts';
import { occupancy, SMS } from './sm.ts';
import { traceMainLoop } from './warp.ts';

export interface Row extends Mark, MarkEnd {
  /** Part of the program's operations. */
  share: number;
  registers?: number;
  spills?: number;
  /** Bytes of workgroup memory. */
  shared?: number;
  instructions?: number;
  /** Workgroups or waves that are resident, in words. */
  resident?: string;
  /** Share of the arithmetic units' peak, 0 to 1, by model. */
  busy: Record<string, number>;
  /** What holds it back, by the first model. */
  limit?: string;
  /** Instructions of one turn of the main loop. */
  mix: Record<string, number>;
}

/** Targets of the report: the multiprocessors that NVIDIA's code is modelled on, or the reader of another compiler. */
export const TARGETS = {
  'nvidia-ada': ['sm_89', 'sm_90'],
  'nvidia-ampere': ['sm_86', 'sm_80'],
  'amd-rdna3': (text: string) => parseAco(text, 'navi31'),
  'amd-rdna4': (text: string) => parseAco(text, 'gfx1201'),
  'apple-m1': parseAgx,
  'adreno-740': parseIr3,
} satisfies Record<string, string[] | ((text: string) => Compiled | undefined)>;

export type TargetName = keyof typeof TARGETS;

/** A trace longer than this is no loop but a whole kernel unrolled. */
const LONGEST_TURN = 60_000;

/** Kernels with at least this part of their program's operations are hot: only they are simulated, and have a line in the table. */
export const HOT = 0.01;

/** @param log what kernels.ts and the compiler wrote */
export function rowsOf(target: TargetName, log: string): Row[] {
  const model = TARGETS[target];
  const parts = log
    .split('@@KERNEL ')
    .slice(1)
    .map((text) => ({ text, mark: JSON.parse(text.slice(0, text.indexOf('\n'))) as Mark }));
  const total = new Map<string, number>();
  for (const { mark } of parts) total.set(mark.program, (total.get(mark.program) ?? 0) + mark.flops);
  return parts.map(({ text, mark }): Row => {
    const end = /@@END (\{.*\})/.exec(text)?.[1];
    const closing: MarkEnd = end ? (JSON.parse(end) as MarkEnd) : { ms: 0, error: 'the process ended' };
    const share = mark.flops / (total.get(mark.program) || 1);
    const row: Row = { ...mark, ...closing, share, busy: {}, mix: {} };
    return typeof model === 'function'
      ? { ...row, ...others(model(text)) }
      : { ...row, ...nvidia(text, share < HOT ? [] : model) };
  });
}

function nvidia(text: string, models: readonly string[]): Partial<Row> {
  const kernel = parseNak(text);
  if (!kernel) return {};
  const { stats, sharedBytes: shared, threads } = kernel;
  const registers = stats['Num GPRs'] ?? 0;
  const { steps, loop } = traceMainLoop(kernel);
  const row: Partial<Row> & { busy: Record<string, number> } = {
    registers,
    spills: (stats['Spills to mem'] ?? 0) + (stats['Spills to reg'] ?? 0),
    shared,
    instructions: stats['Instruction count'] ?? 0,
    mix: mixOf(steps),
    busy: {},
  };
  if (!loop || steps.length > LONGEST_TURN) return row;
  for (const name of models) {
    const sm = SMS[name]!;
    const fit = occupancy(sm, threads, registers, shared);
    if (fit.blocks < 1) continue;
    const turn = simulate(sm, steps, fit.blocks, Math.ceil(threads / 32));
    row.busy[name] = turn.busy;
    row.limit ??= turn.limit.replace(/ \(.*/, '');
    row.resident ??= `${fit.blocks} × ${fit.warps / fit.blocks} warps (${fit.limit})`;
  }
  return row;
}

function others(compiled: Compiled | undefined): Partial<Row> {
  if (!compiled) return {};
  const { stats, busy, limit, mix } = compiled;
  const number = (...names: string[]): number | undefined =>
    names.map((name) => stats[name]).find((value): value is number => typeof value === 'number');
  const waves = number('Subgroups per SIMD', 'waves');
  return {
    registers: number('VGPRs', 'registers', 'full') ?? 0,
    spills: (number('Spilled VGPRs') ?? 0) + (number('Spilled SGPRs') ?? 0) + (number('spills') ?? 0),
    shared: number('LDS size') ?? 0,
    instructions: number('Instructions', 'instructions') ?? 0,
    resident: waves === undefined ? `${number('threads')} threads` : `${waves} waves`,
    busy: { static: busy },
    limit,
    mix,
  };
}
