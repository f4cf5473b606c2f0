// Reads what Mesa's NVIDIA compiler (NAK, `NAK_DEBUG=print`) prints: the blocks of instructions and the statistics.
// The last listing counts: NAK prints its program after every pass.

export interface Instr {
  text: string;
  op: string;
  /** Guard: name of a predicate and whether it is negated. */
  guard?: { name: string; not: boolean };
  dst: string[];
  src: string[];
  label?: string;
  delay: number;
}
export interface Block {
  label: string;
  instrs: Instr[];
}
export interface NakKernel {
  blocks: Block[];
  stats: Record<string, number>;
  sharedBytes: number;
  threads: number;
}

/** @param text the part of a log that belongs to one kernel */
export function parseNak(text: string): NakKernel | undefined {
  const start = text.lastIndexOf('NAK IR after calc_instr_deps:');
  if (start < 0) return undefined;
  const end = text.indexOf('Encoded shader:', start);
  const part = text.slice(start, end < 0 ? undefined : end);
  const blocks: Block[] = [];
  const stats: Record<string, number> = {};
  for (const line of part.split('\n')) {
    const head = /^block(?:\.u)? \d+ (L\d+)/.exec(line);
    if (head) blocks.push({ label: head[1]!, instrs: [] });
    else if (line.includes('//') && blocks.length) blocks.at(-1)!.instrs.push(parseInstr(line));
    const stat = /^([A-Z][\w /]+): (\d+)$/.exec(line);
    if (stat) stats[stat[1]!] = Number(stat[2]);
  }
  const size = end < 0 ? '' : text.slice(end);
  stats['Code size'] = (size.match(/[0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{8} [0-9a-f]{8}/g) ?? []).length * 16;
  return {
    blocks,
    stats,
    sharedBytes: Number(/shared_size: (\d+)/.exec(text)?.[1] ?? 0),
    threads: (/workgroup_size: (\d+), (\d+), (\d+)/.exec(text)?.slice(1).map(Number) ?? [0]).reduce((a, b) => a * b, 1),
  };
}

function parseInstr(line: string): Instr {
  const [code, comment = ''] = line.split('//') as [string, string];
  const guard = /^@(!?)(u?p\d+)/.exec(code);
  const body = code.replace(/^@!?u?p\d+/, '').trim();
  const eq = body.indexOf(' = ');
  const lhs = eq < 0 ? '' : body.slice(0, eq).trim();
  const words = (eq < 0 ? body : body.slice(eq + 3))
    .trim()
    .split(/[\s,]+/)
    .filter(Boolean);
  return {
    text: body,
    op: words[0]!,
    ...(guard ? { guard: { name: guard[2]!, not: guard[1] === '!' } } : {}),
    dst: lhs ? lhs.split(/\s+/) : [],
    src: words.slice(1),
    delay: Number(/delay=(\d+)/.exec(comment)?.[1] ?? 1),
    ...(words[0] === 'bra' ? { label: words.at(-1)! } : {}),
  };
}

/** Registers named by an operand: `r4..8` is r4 … r7. Memory operands name their address registers. */
export function registersOf(operand: string): string[] {
  const found: string[] = [];
  for (const m of operand.matchAll(/(?<![\w])(u?[rp])(\d+)(?:\.\.(\d+))?/g)) {
    const from = Number(m[2]);
    const to = m[3] ? Number(m[3]) : from + 1;
    for (let i = from; i < to; i++) found.push(`${m[1]}${i}`);
  }
  return found;
}
