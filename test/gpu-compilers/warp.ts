// Follows one warp of 32 lanes through a kernel that NAK compiled, and cuts out one turn of its main loop.

import { NEARLY_ALL } from './listing.ts';
import type { Instr, NakKernel } from './nak.ts';
import { evaluate, type Flags, type Registers } from './warp-lanes.ts';
import { addMemoryCost, type Step } from './warp-memory.ts';

/** The steps of one turn of the main loop (the second, warp 0), or of the whole kernel when it has none. */
export function traceMainLoop(
  kernel: NakKernel,
  most = 400_000,
): { loop?: { turns: number }; steps: Step[]; before: number } {
  const main = mainLoop(kernel);
  const steps: Step[] = [];
  const heads: number[] = [];
  const registers: Registers = new Map();
  const flags: Flags = new Map();
  const at = new Map(kernel.blocks.map((b, i) => [b.label, i]));
  for (const [i, b] of kernel.blocks.entries())
    for (const x of b.instrs) if (x.op === 'nop' && x.src[0]) at.set(x.src[0], i);
  let unknownBack = 0;
  let block = 0;
  walk: while (block < kernel.blocks.length && steps.length < most) {
    if (main && block === main.head) {
      heads.push(steps.length);
      if (heads.length === 4) break;
    }
    let next = block + 1;
    for (const instr of kernel.blocks[block]!.instrs) {
      if (instr.op === 'exit') break walk;
      const guard = instr.guard ? flags.get(instr.guard.name) : true;
      const active = instr.guard ? (guard === undefined ? undefined : guard !== instr.guard.not) : true;
      if (instr.op === 'bra') {
        let taken: boolean | undefined = active;
        const test = instr.src.find((w) => /^!?u?p\d+$/.test(w));
        if (test) {
          const value = flags.get(test.replace('!', ''));
          const want = value === undefined ? undefined : value !== test.startsWith('!');
          taken = want === undefined || taken === undefined ? undefined : want && taken;
        }
        const target = at.get(instr.label!)!;
        steps.push({ instr, block });
        // Depends on data: a part with barriers in it is taken for a rare one and skipped, others are entered; backwards, once.
        if (taken === undefined) {
          const rare = kernel.blocks.slice(block + 1, target).some((b) => b.instrs.some((x) => x.op.startsWith('bar')));
          taken = target > block ? rare : unknownBack++ < 1;
        }
        if (taken) {
          next = target;
          break;
        }
        continue;
      }
      const step: Step = { instr, block };
      addMemoryCost(step, registers);
      steps.push(step);
      evaluate(instr, registers, flags, active);
    }
    block = next;
  }
  if (heads.length < 2) return { steps, before: 0 };
  const inner = heads.length >= 3 && heads[2]! - heads[1]! < 1.5 * (heads[1]! - heads[0]!);
  // A loop of two turns in another: the third time at its head, other work lies between.
  const [from, to] = inner ? [heads[1]!, heads[2]!] : [heads[0]!, heads[1]!];
  return { loop: { turns: heads.length }, steps: steps.slice(from, to), before: from };
}

/**
 * The outermost loop that holds at least half of the kernel's products; a smaller one with barriers where that holds nearly all of them (attention
 * goes over its keys more than once).
 */
function mainLoop(kernel: NakKernel): { head: number; end: number } | undefined {
  const work = (i: Instr): number => (/^hmma|^imma/.test(i.op) ? 64 : /^(ffma|hfma2)/.test(i.op) ? 1 : 0);
  const loops: { head: number; end: number; work: number }[] = [];
  const at = new Map(kernel.blocks.map((b, i) => [b.label, i]));
  for (const [i, b] of kernel.blocks.entries())
    for (const x of b.instrs) if (x.op === 'nop' && x.src[0]) at.set(x.src[0], i);
  let total = 0;
  for (const [i, b] of kernel.blocks.entries()) {
    for (const instr of b.instrs) {
      total += work(instr);
      const target = instr.label ? at.get(instr.label) : undefined;
      if (target !== undefined && target <= i) loops.push({ head: target, end: i, work: 0 });
    }
  }
  for (const l of loops)
    for (let i = l.head; i <= l.end; i++) for (const x of kernel.blocks[i]!.instrs) l.work += work(x);
  const heavy = loops.filter((l) => l.work >= Math.max(1, total / 2));
  const sized = heavy.sort((a, b) => b.end - b.head - (a.end - a.head));
  const whole = sized.filter(
    (l) =>
      l.work >= NEARLY_ALL * total &&
      kernel.blocks.slice(l.head, l.end + 1).some((b) => b.instrs.some((x) => x.op.startsWith('bar'))),
  );
  return whole.at(-1) ?? sized[0];
}
