// Carries out a warp's integer arithmetic for all of its 32 lanes.
// Enough of the instruction set to know every address, trip count and branch that does not depend on data.

import { type Instr, registersOf } from './nak.ts';

/** Values of a register, by lane; undefined where they depend on data. */
export type Lanes = Int32Array | undefined;
export const LANES = 32;
export type Registers = Map<string, Lanes>;
export type Flags = Map<string, boolean | undefined>;
export const fill = (v: number): Int32Array => new Int32Array(LANES).fill(v | 0);

/** Value of an operand as the listing writes it. */
export function readOperand(word: string, registers: Registers): Lanes {
  let text = word;
  let negate = false;
  if (text.startsWith('-') && !/^-\d/.test(text)) {
    negate = true;
    text = text.slice(1);
  }
  let value: Lanes;
  if (/^0x[0-9a-f]+$/.test(text)) value = fill(Number(text));
  else if (/^-?\d+$/.test(text)) value = fill(Number(text));
  else if (text === 'rZ' || text === 'urZ') value = fill(0);
  else if (/^u?r\d+/.test(text)) value = registers.get(registersOf(text)[0]!);
  else {
    const constant = /^c\[0x([0-9a-f]+)\]\[\+?0x([0-9a-f]+)\]/.exec(text);
    // Buffers' addresses lie in constant bank 1, 16 bytes each: any aligned address will do. Bank 0: the dispatch's base, 0.
    if (constant) {
      const offset = Number.parseInt(constant[2]!, 16);
      value = fill(constant[1] === '1' && offset % 16 === 0 ? (1 + offset / 16) * 0x4000000 : 0);
    }
  }
  return negate && value ? value.map((x) => -x) : value;
}

const SPECIAL: Record<string, (lane: number) => number> = {
  '0x0': (lane) => lane,
  '0x21': (lane) => lane,
  '0x22': () => 0,
  '0x23': () => 0,
  '0x25': () => 3,
  '0x26': () => 5,
  '0x27': () => 0,
};

/** @param active whether the guard lets it happen; undefined when that depends on data */
export function evaluate(i: Instr, registers: Registers, flags: Flags, active: boolean | undefined): void {
  const get = (n: number): Lanes => (i.src[n] === undefined ? undefined : readOperand(i.src[n]!, registers));
  const map = (f: (...v: number[]) => number, ...args: Lanes[]): Lanes =>
    args.some((a) => a === undefined)
      ? undefined
      : Int32Array.from({ length: LANES }, (_, l) => f(...args.map((a) => a![l]!)));
  let value: Lanes;
  const name = i.op.split('.')[0]!;
  if (name === 's2r') {
    const f = SPECIAL[/sr\[(0x[0-9a-f]+)\]/.exec(i.src[0]!)?.[1] ?? ''];
    value = f && Int32Array.from({ length: LANES }, (_, l) => f(l));
  } else if (name === 'mov' || name === 'r2ur' || name === 'ldc') value = get(0);
  else if (i.op === 'iadd3' || i.op === 'iadd2')
    value = map((a, b, c = 0) => (a + b + c) | 0, ...[0, 1, 2].slice(0, i.src.length).map(get));
  else if (i.op === 'imad') value = map((a, b, c) => (Math.imul(a, b) + c) | 0, get(0), get(1), get(2));
  else if (i.op === 'lea') value = map((a, s, b) => ((a << s) + b) | 0, get(0), get(1), get(2));
  else if (name === 'shf') {
    const right = i.op.includes('.r.');
    const high = i.op.endsWith('.hi');
    if (right && high) value = map((h, s) => (i.op.includes('u32') ? h >>> s : h >> s) | 0, get(1), get(2));
    else if (!right && !high) value = map((l, s) => l << s, get(0), get(2));
  } else if (name === 'lop3') {
    const lut = Number(/LUT\[(0x[0-9a-f]+)\]/.exec(i.op)?.[1] ?? 0);
    value = map(
      (a, b, c) => {
        let r = 0;
        for (let k = 0; k < 8; k++) if ((lut >> k) & 1) r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
        return r;
      },
      get(0),
      get(1),
      get(2),
    );
  } else if (name === 'isetp') {
    const [a, b] = [get(0), get(1)];
    const unsigned = i.op.includes('u32');
    let result: boolean | undefined;
    if (a && b) {
      const [x, y] = unsigned ? [a[0]! >>> 0, b[0]! >>> 0] : [a[0]!, b[0]!];
      result = { lt: x < y, le: x <= y, gt: x > y, ge: x >= y, eq: x === y, ne: x !== y }[i.op.split('.')[1] as 'lt'];
    }
    for (const d of i.dst) if (/^u?p\d/.test(d)) flags.set(d, result);
    return;
  } else if (name === 'sel') {
    const test = flags.get(i.src[0]!.replace('!', ''));
    if (test !== undefined) value = test !== i.src[0]!.startsWith('!') ? get(1) : get(2);
  }
  const first = i.dst[0];
  if (!first) return;
  if (/^u?p\d/.test(first)) {
    for (const d of i.dst) flags.set(d, undefined);
    return;
  }
  const all = i.dst.filter((d) => /^u?r/.test(d)).flatMap(registersOf);
  for (const [n, r] of all.entries())
    registers.set(r, n === 0 && active !== undefined ? (active ? value : registers.get(r)) : undefined);
  for (const d of i.dst.slice(1)) if (/^u?p\d/.test(d)) flags.set(d, undefined);
}
