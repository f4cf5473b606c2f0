// Cycles of one turn of a loop on a streaming multiprocessor: as many warps as fit run the trace on four partitions.
// In-order issue, true register dependencies (not NAK's own scoreboards), barriers, units with their rates.

import { type Cost, costs, madds, type Pipe } from './costs.ts';
import { registersOf } from './nak.ts';
import type { Sm } from './sm.ts';
import type { Step } from './warp-memory.ts';

export interface Turn {
  /** Cycles of an SM for one turn of the loop by every resident block, simulated. */
  cycles: number;
  /** Share of the tensor cores' (or, without them, the FMA units') time in use. */
  busy: number;
  /** The same when each unit alone would count; the largest is the floor. */
  bounds: Record<'issue' | 'tensor' | 'fma' | 'int' | 'mufu' | 'shared' | 'l2' | 'latency', number>;
  limit: string;
  madds: number;
  tflops: number;
  peak: number;
}

/** One turn of the loop, with `blocks` blocks of `warps` warps on the SM. */
export function simulate(sm: Sm, steps: Step[], blocks: number, warps: number): Turn {
  // Kernels of one shape but for their rows have one trace: it is run once.
  const cost = costs(sm, steps);
  const instrs = steps.map(({ instr: { op, dst, src, guard } }) => [op, dst, src, guard]);
  const key = JSON.stringify([sm, blocks, warps, cost, instrs]);
  const turn = done.get(key) ?? run(sm, steps, cost, blocks, warps);
  done.set(key, turn);
  return turn;
}

const done = new Map<string, Turn>();

function run(sm: Sm, steps: Step[], cost: Cost[], blocks: number, warps: number, turns = 6): Turn {
  const index = new Map<string, number>();
  const number = (r: string): number => {
    const known = index.get(r) ?? index.size;
    index.set(r, known);
    return known;
  };
  const sources = steps.map((s) =>
    [...s.instr.src.flatMap(registersOf), ...(s.instr.guard ? [s.instr.guard.name] : [])].map(number),
  );
  const targets = steps.map((s) => s.instr.dst.flatMap(registersOf).map(number));
  const total = blocks * warps;
  const n = steps.length;

  const ready = Array.from({ length: total }, () => new Float64Array(index.size));
  const pc = new Int32Array(total);
  const turn = new Int32Array(total);
  // Blocks start apart, as they do once a few have come and gone.
  const free = Float64Array.from({ length: total }, (_, w) => Math.floor(w / warps) * 397);
  const waiting = new Uint8Array(total);
  const arrived = new Int32Array(blocks);
  const unit = {
    tensor: new Float64Array(4),
    fma: new Float64Array(4),
    int: new Float64Array(4),
    mufu: new Float64Array(4),
  };
  const partition = new Float64Array(4);
  let lsu = 0;
  let l2 = 0;
  const skip = 2;
  let from: { time: number; issued: number } | undefined;
  let issued = 0;
  let now = 0;

  const candidate = (w: number): number => {
    const i = pc[w]!;
    const c = cost[i]!;
    let t = free[w]!;
    if (c.pipe === 'copy') return t;
    for (const r of sources[i]!) t = Math.max(t, ready[w]![r]!);
    for (const r of targets[i]!) t = Math.max(t, ready[w]![r]!);
    const p = w % 4;
    if (c.pipe in unit) t = Math.max(t, unit[c.pipe as 'fma'][p]!);
    // A queue of some instructions stands before the memory unit, which all partitions share.
    if (c.pipe === 'lsu') t = Math.max(t, lsu - 32);
    return Math.max(t, partition[p]!);
  };

  const advance = (w: number): void => {
    if (++pc[w]! < n) return;
    pc[w] = 0;
    turn[w]!++;
    if (!from && turn.every((t) => t >= skip)) from = { time: now, issued };
  };

  // Until every warp has made its turns; what is counted begins when each has made some.
  while (turn.some((t) => t < turns)) {
    let best = -1;
    let time = Number.POSITIVE_INFINITY;
    for (let w = 0; w < total; w++) {
      if (waiting[w]) continue;
      const t = candidate(w);
      if (t < time) {
        time = t;
        best = w;
      }
    }
    if (best < 0) throw new Error('all warps wait');
    now = Math.max(now, time);
    issued++;
    const w = best;
    const i = pc[w]!;
    const c = cost[i]!;
    const p = w % 4;
    if (c.pipe === 'copy') {
      for (const [k, r] of targets[i]!.entries()) ready[w]![r] = ready[w]![sources[i]![k]!]!;
      advance(w);
      continue;
    }
    partition[p] = time + 1;
    free[w] = time + (steps[i]!.instr.op === 'bra' ? 6 : 1);
    if (c.pipe in unit) unit[c.pipe as 'fma'][p] = time + c.hold;
    let done = time + c.latency;
    if (c.pipe === 'lsu') {
      lsu = Math.max(lsu, time) + c.hold;
      done = lsu + c.latency;
      if (c.l2) {
        l2 = Math.max(l2, lsu) + c.l2;
        done = Math.max(done, l2 + c.latency);
      }
    }
    for (const r of targets[i]!) ready[w]![r] = done;
    if (c.pipe === 'bar') {
      const b = Math.floor(w / warps);
      waiting[w] = 1;
      if (++arrived[b]! === warps) {
        arrived[b] = 0;
        for (let k = b * warps; k < (b + 1) * warps; k++) {
          waiting[k] = 0;
          free[k] = time + 12;
        }
      }
    }
    advance(w);
  }
  // Cycles in which the SM issues one turn's instructions of all its warps.
  const cycles = ((now - from!.time) * n * total) / (issued - from!.issued);

  const sum = (pipe: Pipe, f: (c: Cost) => number = (c) => c.hold): number =>
    cost.filter((c) => c.pipe === pipe).reduce((a, c) => a + f(c), 0);
  const perPartition = total / 4;
  const bounds = {
    issue: cost.filter((c) => c.pipe !== 'copy').length * perPartition,
    tensor: sum('tensor') * perPartition,
    fma: sum('fma') * perPartition,
    int: sum('int') * perPartition,
    mufu: sum('mufu') * perPartition,
    shared: sum('lsu') * total,
    l2: cost.reduce((a, c) => a + c.l2, 0) * total,
    latency: alone(steps, cost, sources, targets, index.size),
  };
  const work = steps.reduce((a, s) => a + madds(s.instr.op), 0) * total;
  const units = Object.entries(bounds)
    .filter(([k]) => k !== 'latency')
    .sort((a, b) => b[1] - a[1]);
  const matrix = bounds.tensor > 0;
  const peak = matrix ? (2 * 2048 * 4) / sm.hmma : (2 * 32 * 4) / sm.ffma;
  const busy = (2 * work) / cycles / peak;
  return {
    cycles,
    busy,
    bounds,
    limit:
      units[0]![1] > 0.85 * cycles ? units[0]![0] : `latency (one block alone needs ${Math.round(bounds.latency)})`,
    madds: work,
    tflops: ((2 * work) / cycles) * sm.sms * sm.ghz * 1e-3,
    peak: peak * sm.sms * sm.ghz * 1e-3,
  };
}

/** Cycles of a turn for a warp that has the SM to itself. */
function alone(steps: Step[], cost: Cost[], sources: number[][], targets: number[][], registers: number): number {
  const ready = new Float64Array(registers);
  const unit: Record<string, number> = {};
  let t = 0;
  let last = 0;
  for (let round = 0; round < 2; round++) {
    if (round === 1) last = t;
    for (let i = 0; i < steps.length; i++) {
      const c = cost[i]!;
      if (c.pipe === 'copy') {
        for (const [k, r] of targets[i]!.entries()) ready[r] = ready[sources[i]![k]!]!;
        continue;
      }
      for (const r of sources[i]!) t = Math.max(t, ready[r]!);
      for (const r of targets[i]!) t = Math.max(t, ready[r]!);
      t = Math.max(t, unit[c.pipe] ?? 0);
      unit[c.pipe] = t + (c.pipe === 'none' ? 0 : c.hold);
      for (const r of targets[i]!) ready[r] = t + c.hold + c.latency;
      t += c.pipe === 'bar' ? 12 : 1;
    }
  }
  return t - last;
}
