// Reads what Mesa's Apple compiler (AGX) prints: statistics, and the main loop's instruction mix.

import { type Compiled, conclude, count, type Line, loopOf } from './listing.ts';

/** AGX, per core of 4 × 32 lanes: a SIMD group's FMA each cycle and pipeline; 64 bytes a clock of threadgroup memory assumed. */
export function parseAgx(text: string): Compiled | undefined {
  const all = [
    ...text.matchAll(
      /CS shader: (\d+) instrs, (\d+) alu, (\d+) fscib, (\d+) ic, (\d+) code size, (\d+) gprs, (\d+) uniforms, (\d+) scratch, (\d+) threads, (\d+) loops, (\d+):(\d+) spills:fills/g,
    ),
  ].at(-1);
  if (!all) return undefined;
  const [, instrs, , , , size, gprs, , scratch, threads, , spills, fills] = all;
  const lines: Line[] = [];
  // The main shader is the longest listing.
  const listings = text.split(/\n(?=\s*0: [0-9a-f]{4,}\s)/);
  const body = listings.filter((s) => /^\s*0: /.test(s)).reduce((a, b) => (b.length > a.length ? b : a), '');
  const at: [number, number][] = [];
  for (const raw of body.split('\n')) {
    const m = /^\s*([0-9a-f]+): [0-9a-f]{4,24}\s+(\w+)\s*(.*)$/.exec(raw);
    if (!m) continue;
    const pc = Number.parseInt(m[1]!, 16);
    const jump = m[2]!.startsWith('jmp') ? /-\d+/.exec(m[3]!)?.[0] : undefined;
    at.push([pc, lines.length]);
    lines.push({ op: m[2]!, text: raw, label: String(pc), ...(jump ? { target: String(pc + Number(jump)) } : {}) });
  }
  const work = ({ op }: Line): number =>
    /^(ffma|hfma|ffmadd|hffma)/.test(op) || op === 'fmadd32' || op === 'fmadd16' ? 32 : 0;
  const loop = loopOf(lines, work);
  const mix: Record<string, number> = {};
  let alu = 0;
  let lds = 0;
  let madds = 0;
  for (const line of loop) {
    const { op, text: t } = line;
    madds += work(line);
    const vector = /xyzw/.test(t) ? 4 : /xyz/.test(t) ? 3 : /\bxy\b/.test(t) ? 2 : 1;
    const bytes = vector * (/i16|f16/.test(t) ? 2 : /i8/.test(t) ? 1 : 4);
    if (work(line)) {
      count(mix, op);
      alu++;
    } else if (/^lload/.test(op)) {
      count(mix, `local read ${bytes * 8}`);
      lds += (bytes * 32) / 64;
    } else if (/^lstore/.test(op)) {
      count(mix, `local write ${bytes * 8}`);
      lds += (bytes * 32) / 64;
    } else if (/^load|^device_load/.test(op)) count(mix, `global read ${bytes * 8}`);
    else if (/^store/.test(op)) count(mix, 'global write');
    else if (/^wait/.test(op)) count(mix, 'wait');
    else if (/^barrier/.test(op)) count(mix, 'barrier');
    else if (/^(jmp|if|while|pop|else|push)/.test(op)) {
      count(mix, 'flow');
      alu++;
    } else {
      count(mix, /^f|^h/.test(op) ? 'float' : /^mov/.test(op) ? 'move' : 'integer');
      alu++;
    }
  }
  return {
    stats: {
      registers: Number(gprs),
      threads: Number(threads),
      spills: Number(spills),
      fills: Number(fills),
      scratch: Number(scratch),
      'Code size': Number(size),
      instructions: Number(instrs),
    },
    ...conclude(mix, madds, { alu, local: lds }, 32),
  };
}
