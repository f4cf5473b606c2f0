// What each instruction of NVIDIA's costs in the model: the unit it holds, for how long, and when its result is there.

import type { Sm } from './sm.ts';
import type { Step } from './warp-memory.ts';

/** `copy`: a move between registers, free here: NAK's allocator places accumulators badly, NVIDIA's own does not. */
export type Pipe = 'tensor' | 'fma' | 'int' | 'mufu' | 'lsu' | 'none' | 'bar' | 'copy';
export interface Cost {
  pipe: Pipe;
  hold: number;
  latency: number;
  l2: number;
}

/** Multiply-adds of an instruction of one warp. */
export const madds = (op: string): number =>
  /^hmma\.m16n8k16/.test(op)
    ? 2048
    : /^hmma\.m16n8k8/.test(op)
      ? 1024
      : /^ffma/.test(op)
        ? 32
        : /^hfma2/.test(op)
          ? 64
          : 0;

export function costs(sm: Sm, steps: Step[]): Cost[] {
  // A sector a warp has loaded once in this turn is taken to hit L1 the second time.
  const seen = new Set<number>();
  return steps.map((s): Cost => {
    const { op } = s.instr;
    if (/^hmma\.m16n8k16/.test(op))
      return { pipe: 'tensor', hold: sm.hmma, latency: Math.max(sm.hmmaLatency, sm.hmma + 2), l2: 0 };
    if (/^hmma/.test(op)) return { pipe: 'tensor', hold: sm.hmma / 2, latency: 18, l2: 0 };
    if (op === 'mov' && /^r\d/.test(s.instr.src[0]!) && /^r\d/.test(s.instr.dst[0]!))
      return { pipe: 'copy', hold: 0, latency: 0, l2: 0 };
    // NAK transposes V's matrices one 8×8 at a time after loading; NVIDIA's own compiler loads them transposed (LDSM.T).
    if (op === 'nop' || op.startsWith('membar') || op.startsWith('movm'))
      return { pipe: 'copy', hold: 0, latency: 0, l2: 0 };
    if (/^(ldsm|ld\.shared)/.test(op)) return { pipe: 'lsu', hold: s.cost!, latency: 25 + s.cost!, l2: 0 };
    if (/^st\.shared/.test(op)) return { pipe: 'lsu', hold: s.cost!, latency: 0, l2: 0 };
    if (/^(ld|st|atom)\.global/.test(op)) {
      const fresh = s.sectors ? s.sectors.filter((x) => !seen.has(x)) : undefined;
      for (const x of fresh ?? []) seen.add(x);
      const misses = fresh?.length ?? s.cost!;
      return {
        pipe: 'lsu',
        hold: Math.max(1, Math.ceil(s.bytes! / 128)),
        latency: misses ? sm.l2Latency : 35,
        l2: (misses * 32) / sm.l2Bytes,
      };
    }
    // 64 a clock and SM. NAK widens f16 with F2F, NVIDIA's own compiler with HADD2 at that rate.
    if (/^f2f\.|^i2f|^f2i/.test(op)) return { pipe: 'mufu', hold: 2, latency: 12, l2: 0 };
    if (/^mufu/.test(op)) return { pipe: 'mufu', hold: sm.mufu, latency: 20, l2: 0 };
    if (/^shfl/.test(op)) return { pipe: 'lsu', hold: 1, latency: 23, l2: 0 };
    if (/^ffma|^fadd|^fmul/.test(op)) return { pipe: 'fma', hold: sm.ffma, latency: 4, l2: 0 };
    if (/^hfma2|^hadd2|^hmul2/.test(op)) return { pipe: 'fma', hold: sm.hfma2, latency: 5, l2: 0 };
    if (/^imad/.test(op)) return { pipe: 'fma', hold: 2, latency: 5, l2: 0 };
    if (/^bar\.sync/.test(op)) return { pipe: 'bar', hold: 0, latency: 0, l2: 0 };
    if (/^(nop|bssy|bsync|bclear|membar|warpsync|depbar)/.test(op)) return { pipe: 'none', hold: 0, latency: 0, l2: 0 };
    if (/^bra/.test(op)) return { pipe: 'none', hold: 0, latency: 8, l2: 0 };
    if (/^u|^s2r|^r2ur|^ldc|^vote/.test(op) || s.instr.dst[0]?.startsWith('ur'))
      return { pipe: 'none', hold: 0, latency: 12, l2: 0 };
    return { pipe: 'int', hold: sm.int, latency: 5, l2: 0 };
  });
}

/** What a turn consists of. */
export function mixOf(steps: Step[]): Record<string, number> {
  const mix: Record<string, number> = {};
  const add = (k: string, v = 1): void => {
    mix[k] = (mix[k] ?? 0) + v;
  };
  for (const { instr, cost, bytes } of steps) {
    const { op } = instr;
    const width = /\.[bu](8|16|32|64|128)\b/.exec(op)?.[1];
    if (/^hmma/.test(op)) add('matrix');
    else if (/^ldsm/.test(op)) {
      add(`ldsm${/\.x\d/.exec(op)?.[0] ?? ''}`);
      add('conflicts', cost! - bytes! / 128);
    } else if (/^movm/.test(op)) add('movm');
    else if (/^ld\.shared/.test(op)) {
      add(`lds.${width}`);
      add('conflicts', Math.max(0, cost! - Math.ceil(bytes! / 128)));
      add('shared cycles', cost!);
    } else if (/^st\.shared/.test(op)) {
      add(`sts.${width}`);
      add('conflicts', Math.max(0, cost! - Math.ceil(bytes! / 128)));
    } else if (/^ld\.global/.test(op)) {
      add(`ldg.${width}`);
      add('sectors', cost!);
    } else if (/^st\.global/.test(op)) add(`stg.${width}`);
    else if (/^ffma/.test(op)) add('ffma');
    else if (/^hfma2/.test(op)) add('hfma2');
    else if (/^f2f|^f2fp|^i2f|^f2i/.test(op)) add('convert');
    else if (/^mufu/.test(op)) add('mufu');
    else if (/^fadd|^fmul|^fmnmx|^fs|^hadd|^hmul/.test(op)) add('float');
    else if (/^bar/.test(op)) add('barrier');
    else if (/^bra|^bssy|^bsync|^bclear/.test(op)) add('branch');
    else if (/^nop|^membar/.test(op)) add('other');
    else if (/^shfl/.test(op)) add('shuffle');
    else if (op === 'mov') add('copy');
    else add('integer');
  }
  return mix;
}
