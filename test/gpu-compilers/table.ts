// The committed table of the report: written from rows, read back, and compared, so that a lost percent fails.

import { HOT, type Row } from './rows.ts';

/**
 * A hot kernel may lose this much of its share of peak: `static` is counted; what is simulated depends on the order in which a compiler
 * happens to put independent instructions, and moves by some points with a text that asks for the same work.
 */
const mostLost = (model: string): number => (model === 'static' ? 0.03 : 0.06);
const SLOWEST_MS = 10_000;

interface Line {
  program: string;
  kernel: string;
  busy: Record<string, number>;
}

/** One target's section in Markdown, heading included. */
export function section(target: string, rows: readonly Row[]): string {
  const seconds = rows.reduce((sum, r) => sum + r.ms, 0) / 1000;
  const slowest = rows.reduce((a, b) => (b.ms > a.ms ? b : a));
  const lines = hot(rows).map((r) =>
    [
      r.program,
      r.label,
      percent(r.share),
      r.registers,
      r.spills,
      r.shared,
      r.resident,
      Object.entries(r.busy)
        .map(([model, share]) => `${model} ${percent(share)}`)
        .join(', '),
      r.limit,
    ].join(' | '),
  );
  return `## ${target}

${rows.length} pipelines, compiled in ${seconds.toFixed(0)} s together; the slowest took ${(slowest.ms / 1000).toFixed(1)} s.

| program | kernel | share of work | registers | spills | workgroup memory | resident | busy | limit |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
${lines.map((line) => `| ${line} |`).join('\n')}
`;
}

/** What is wrong with `rows` by themselves, and against the committed section of the same target. */
export function complaints(target: string, rows: readonly Row[], committed: string | undefined): string[] {
  const found: string[] = [];
  for (const r of rows) {
    const name = `${target}: ${r.program} ${r.label}`;
    if (r.error) found.push(`${name}: refused: ${r.error}`);
    if (r.ms > SLOWEST_MS) found.push(`${name}: compiled for ${(r.ms / 1000).toFixed(1)} s, the limit is 10`);
    if (r.spills) found.push(`${name}: ${r.spills} spills`);
  }
  const before = new Map(readSection(committed ?? '').map((line) => [keyOf(line.program, line.kernel), line]));
  for (const r of hot(rows)) {
    const old = before.get(keyOf(r.program, r.label));
    for (const [model, share] of Object.entries(old?.busy ?? {})) {
      const now = r.busy[model] ?? 0;
      if (now < share - mostLost(model)) {
        found.push(
          `${target}: ${r.program} ${r.label}: ${model} ${percent(now)}, the committed table has ${percent(share)}`,
        );
      }
    }
  }
  return found;
}

/** Hot kernels that changed, for people: one line each. */
export function changes(rows: readonly Row[], committed: string | undefined): string[] {
  const before = new Map(readSection(committed ?? '').map((line) => [keyOf(line.program, line.kernel), line]));
  return hot(rows).flatMap((r) => {
    const old = before.get(keyOf(r.program, r.label));
    const text = (busy: Record<string, number> = {}): string =>
      Object.entries(busy)
        .map(([model, share]) => `${model} ${percent(share)}`)
        .join(', ') || 'none';
    return text(old?.busy) === text(r.busy) ? [] : [`${r.program} ${r.label}: ${text(old?.busy)} → ${text(r.busy)}`];
  });
}

/** The section of `target` in a document, without the next heading. */
export function sectionIn(document: string, target: string): string | undefined {
  return document.split(/^(?=## )/m).find((part) => part.startsWith(`## ${target}\n`));
}

function readSection(text: string): Line[] {
  return text.split('\n').flatMap((line) => {
    const cells = line.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, ''));
    if (cells.length !== 9 || cells[0] === 'program' || cells[0]!.startsWith('---')) return [];
    const busy = [...cells[7]!.matchAll(/(\w+) ([\d.]+) %/g)].map(([, model, share]) => [model!, Number(share) / 100]);
    return [{ program: cells[0]!, kernel: cells[1]!, busy: Object.fromEntries(busy) }];
  });
}

/** What a kernel computes, without the tile it does it in, so that a better schedule is compared with the one before. */
function keyOf(program: string, label: string): string {
  const shape = /\((.*)\)$/.exec(label)?.[1] ?? / (\d+×\d+) \d+×\d+/.exec(label)?.[1] ?? label;
  return `${program} ${label.split(' ')[0]} ${shape}`;
}

const hot = (rows: readonly Row[]): Row[] =>
  rows
    .filter((r) => r.share >= HOT)
    .sort((a, b) => (a.program === b.program ? b.flops - a.flops : a.program < b.program ? -1 : 1));

const percent = (x: number): string => `${(100 * x).toFixed(x < 0.1 ? 1 : 0)} %`;
