// What a warp's access to memory costs: cycles of the banks of shared memory, sectors of global memory.
// From the lanes' real addresses, so conflicts and coalescing are exact.

import type { Instr } from './nak.ts';
import { fill, LANES, type Lanes, type Registers, readOperand } from './warp-lanes.ts';

/** An instruction as the warp met it. */
export interface Step {
  instr: Instr;
  block: number;
  /** Shared memory: cycles of the memory's 32 banks, 128 bytes each at best. Global: 32-byte sectors touched. */
  cost?: number;
  /** Bytes the lanes move. */
  bytes?: number;
  /** First lane's address, for reuse. */
  sectors?: number[];
}

/** Bytes a lane moves, from the opcode. */
const widthOf = (op: string): number => Number(/\.[bu](8|16|32|64|128)\b/.exec(op)?.[1] ?? 32) / 8;

/** Adds to `step` what its access costs, if it is one. */
export function addMemoryCost(step: Step, registers: Registers): void {
  const { op, src } = step.instr;
  const shared = /^(ld|st|atom)s?\.shared/.test(op);
  const matrix = op.startsWith('ldsm');
  const global = /^(ld|st|atom)\.global/.test(op) || /^(ldg|stg)/.test(op);
  if (!shared && !matrix && !global) return;
  const operand = src.find((w) => w.startsWith('['));
  const parts = /^\[([^\]+]+)((?:\+[^\]+]+)*)\]/.exec(operand ?? '');
  let address: Lanes = fill(0);
  for (const word of (parts ? [parts[1]!, ...parts[2]!.split('+').filter(Boolean)] : []) as string[]) {
    const scale = Number(/\.x(\d+)$/.exec(word)?.[1] ?? 1);
    const value = readOperand(word.replace(/\.x\d+$/, ''), registers);
    address = value && address ? address.map((a, l) => a + value[l]! * scale) : undefined;
  }
  if (matrix) {
    const matrices = Number(/\.x(\d)/.exec(op)?.[1] ?? 1);
    step.bytes = matrices * 128;
    step.cost = 0;
    // Each eight lanes name the rows of one 8×8 matrix of 16-byte rows.
    for (let m = 0; m < matrices; m++) step.cost += address ? conflicts(address.slice(m * 8, m * 8 + 8), 16) : 1;
    return;
  }
  const width = widthOf(op);
  step.bytes = width * LANES;
  if (shared) {
    // Accesses of 8 and 16 bytes go half a warp and a quarter of a warp at a time.
    const group = width === 16 ? 8 : width === 8 ? 16 : 32;
    step.cost = 0;
    // Groups that together still touch no bank twice (the same words, say) go in one cycle.
    let pending: number[] = [];
    for (let l = 0; l < LANES; l += group) {
      if (!address) {
        step.cost++;
        continue;
      }
      const lanes = [...address.slice(l, l + group)];
      if (pending.length && conflicts([...pending, ...lanes], width) === 1) {
        pending.push(...lanes);
        continue;
      }
      step.cost += conflicts(lanes, width);
      pending = lanes;
    }
    return;
  }
  if (address) {
    const sectors = new Set<number>();
    for (const a of address) for (let b = 0; b < width; b += 4) sectors.add((a + b) >>> 5);
    step.sectors = [...sectors];
    step.cost = sectors.size;
  } else step.cost = (width * LANES) / 32;
}

/** Most different words of one bank among the lanes. */
function conflicts(addresses: Iterable<number>, width: number): number {
  const banks = Array.from({ length: 32 }, () => new Set<number>());
  for (const a of addresses) for (let b = 0; b < width; b += 4) banks[((a + b) >>> 2) & 31]!.add((a + b) >>> 2);
  return Math.max(1, ...banks.map((s) => s.size));
}
