// Reads what Mesa's Qualcomm compiler (ir3) prints: statistics with stall estimates, and the main loop's instruction mix.

import { type Compiled, conclude, count, type Line, loopOf } from './listing.ts';

/** ir3: counts and stalls as the compiler estimates them, for 128 lanes at a time. */
export function parseIr3(text: string): Compiled | undefined {
  const clean = text.replace(/^MESA: info: ?/gm, '');
  const last = [
    ...clean.matchAll(
      /; \S+ prog \d+\/\d+: (\d+) instr, (\d+) nops, (\d+) non-nops, (\d+) mov, (\d+) cov, (\d+) dwords\n; .*?, (\d+) half, (\d+) full, (\d+) constlen\n; .*?: (\d+) cat0, (\d+) cat1, (\d+) cat2, (\d+) cat3, (\d+) cat4, (\d+) cat5, (\d+) cat6, (\d+) cat7\n; .*?: (\d+) sstall, (\d+) \(ss\), (\d+) systall, (\d+) \(sy\), (\d+) loops\n; .*?: (\d+) max_waves, (\d+) double/g,
    ),
  ].at(-1);
  if (!last) return undefined;
  const n = last.slice(1).map(Number);
  const code = clean.slice(clean.lastIndexOf('Native code for'));
  const lines: Line[] = [];
  for (const raw of code.split('\n')) {
    const label = /^(l\d+):/.exec(raw)?.[1];
    if (label) {
      lines.push({ op: '', text: raw, label });
      continue;
    }
    if (/^[;@]/.test(raw)) continue;
    const m = /^(?:\([a-z0-9]+\))*\s*([a-z][\w.]*)/.exec(raw.trim());
    if (!m) continue;
    const target = /^(br|jump|bany|ball|brao|braa|getone)/.test(m[1]!) ? /#(l\d+)/.exec(raw)?.[1] : undefined;
    lines.push({ op: m[1]!, text: raw, ...(target ? { target } : {}) });
  }
  const repeat = (t: string): number => 1 + Number(/\(rpt(\d)\)/.exec(t)?.[1] ?? 0);
  const work = ({ op, text: t }: Line): number => (/^mad\.f/.test(op) ? 128 * repeat(t) : 0);
  const loop = loopOf(lines, work, ({ op }) => op.startsWith('mad.f16'));
  const mix: Record<string, number> = {};
  let alu = 0;
  let madds = 0;
  for (const line of loop) {
    const { op, text: t } = line;
    const r = repeat(t) + Number(/\(nop(\d)\)/.exec(t)?.[1] ?? 0);
    if (!op) continue;
    madds += work(line);
    if (work(line)) {
      count(mix, op.replace('mad.', 'mad ').replace('f16', 'f16'), repeat(t));
      alu += r;
    } else if (/^ldl/.test(op)) count(mix, `local read ${op.split('.')[1] ?? ''}×${/, (\d)\s*$/.exec(t)?.[1] ?? 1}`);
    else if (/^stl/.test(op)) count(mix, 'local write');
    else if (/^(isam|ldib|ldg|ldc)/.test(op)) count(mix, `global read (${op.split('.')[0]})`);
    else if (/^(stib|stg)/.test(op)) count(mix, 'global write');
    else if (/^cov/.test(op)) {
      count(mix, 'convert', repeat(t));
      alu += r;
    } else if (/^nop/.test(op)) {
      count(mix, 'nop', repeat(t));
      alu += r;
    } else if (/^(bar|fence)/.test(op)) count(mix, 'barrier');
    else if (/^(br|jump|b|getone|sh)/.test(op)) {
      count(mix, 'flow');
      alu += r;
    } else {
      count(mix, /\.f/.test(op) ? 'float' : /^mov/.test(op) ? 'move' : 'integer', repeat(t));
      alu += r;
    }
  }
  return {
    stats: {
      instructions: n[0]!,
      nops: n[1]!,
      half: n[6]!,
      full: n[7]!,
      sstall: n[17]!,
      systall: n[19]!,
      waves: n[22]!,
      'Code size': n[5]! * 4,
      convert: n[4]!,
    },
    ...conclude(mix, madds, { alu: alu * 2 }, 64),
  };
}
