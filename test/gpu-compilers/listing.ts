// What the readers of AMD's, Apple's and Qualcomm's listings share: the main loop, its mix, and the busiest unit.

export interface Compiled {
  stats: Record<string, number | string>;
  /** Instructions of one turn of the main loop of one wave. */
  mix: Record<string, number>;
  /** Multiply-adds of one turn of one wave. */
  madds: number;
  bounds: Record<string, number>;
  busy: number;
  limit: string;
}

export interface Line {
  op: string;
  text: string;
  label?: string;
  target?: string;
}

/** Of the products: what a loop inside another must hold to be the main one. */
export const NEARLY_ALL = 0.9;

/**
 * The outermost loop that holds at least half of the products; a smaller one with barriers where that holds nearly all of them. Its branches are all counted, but for parts with a barrier in
 * them: those are taken for rare ones (attention's rescaling), as the model of NVIDIA's does. Rare, too, are products that are not packed where the
 * loop has packed ones: what a tile of too large values gets.
 */
export function loopOf(lines: Line[], work: (l: Line) => number, packed: (l: Line) => boolean = () => false): Line[] {
  const at = new Map<string, number>();
  for (const [i, l] of lines.entries()) if (l.label) at.set(l.label, i);
  const total = lines.reduce((a, l) => a + work(l), 0);
  let best: [number, number] | undefined;
  let whole: [number, number] | undefined;
  lines.forEach((l, i) => {
    const head = l.target === undefined ? undefined : at.get(l.target);
    if (head === undefined || head > i) return;
    const inside = lines.slice(head, i + 1).reduce((a, x) => a + work(x), 0);
    if (inside * 2 >= total && inside > 0 && (!best || i - head > best[1] - best[0])) best = [head, i];
    const barrier = lines.slice(head, i + 1).some(({ op }) => isBarrier(op));
    if (barrier && inside >= NEARLY_ALL * total && inside > 0 && (!whole || i - head < whole[1] - whole[0]))
      whole = [head, i];
  });
  best = whole ?? best;
  if (!best) return lines;
  const loop = lines.slice(best[0], best[1] + 1);
  const products = (part: Line[]): number => part.reduce((sum, l) => sum + work(l), 0);
  const most = loop.some(packed) ? products(loop.filter(packed)) / 2 : Number.POSITIVE_INFINITY;
  return withoutRare(
    loop,
    (part) => part.some(({ op }) => isBarrier(op)) || (!part.some(packed) && products(part) > most),
  );
}

const isBarrier = (op: string): boolean => /barrier|^bar/.test(op);

function withoutRare(loop: Line[], rare: (part: Line[]) => boolean): Line[] {
  const at = new Map(loop.flatMap((l, i) => (l.label ? [[l.label, i] as const] : [])));
  const kept: Line[] = [];
  for (let i = 0; i < loop.length; i++) {
    const line = loop[i]!;
    kept.push(line);
    const target = line.target === undefined ? undefined : at.get(line.target);
    if (target === undefined || target <= i) continue;
    if (rare(loop.slice(i + 1, target))) i = target - 1;
  }
  return kept;
}

export const count = (mix: Record<string, number>, key: string, by = 1): void => {
  mix[key] = (mix[key] ?? 0) + by;
};

/** The busiest unit, and the share of `peakPerCycle` multiply-adds that it leaves. */
export function conclude(
  mix: Record<string, number>,
  madds: number,
  bounds: Record<string, number>,
  peakPerCycle: number,
): Pick<Compiled, 'mix' | 'madds' | 'bounds' | 'busy' | 'limit'> {
  const [limit, cycles] = Object.entries(bounds).sort((a, b) => b[1] - a[1])[0] ?? ['', 1];
  return { mix, madds, bounds, busy: madds / Math.max(1, cycles) / peakPerCycle, limit };
}
