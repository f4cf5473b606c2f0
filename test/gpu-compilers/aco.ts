// Reads what Mesa's AMD compiler (ACO) prints: statistics, and the main loop's instruction mix.

import { type Compiled, conclude, count, type Line, loopOf } from './listing.ts';

/** RDNA, per SIMD: one wave instruction a clock; half of a CU's 128 bytes a clock of LDS. */
export function parseAco(text: string, gpu: string): Compiled | undefined {
  if (!text.includes('*** SHADER STATS ***')) return undefined;
  const stats: Record<string, number> = {};
  for (const m of text.matchAll(/^([A-Z][\w -]+): (\d+)$/gm)) stats[m[1]!] = Number(m[2]);
  const asm = text.slice(text.indexOf('disasm:'), text.indexOf('*** SHADER STATS'));
  const lines: Line[] = [];
  for (const raw of asm.split('\n')) {
    const label = /^(BB\d+):/.exec(raw)?.[1];
    if (label) {
      lines.push({ op: '', text: raw, label });
      continue;
    }
    const m = /^\s+([a-z]\w+)\s*(.*?)\s*(?:;|$)/.exec(raw);
    if (!m) continue;
    const target = m[1]!.startsWith('s_cbranch') || m[1] === 's_branch' ? /BB\d+/.exec(m[2]!)?.[0] : undefined;
    lines.push({ op: m[1]!, text: raw, ...(target ? { target } : {}) });
  }
  const wave = / v\[\d+:\d+\].*wave64/.test(asm)
    ? 64
    : (stats['Subgroup size'] ??
      (/s_mov_b64 exec|exec_lo/.test(asm) || gpu !== 'navi10'
        ? asm.includes('_b64 vcc') && !asm.includes('vcc_lo')
          ? 64
          : 32
        : 64));
  const lanes = wave;
  const work = ({ op, text: t }: Line): number => {
    if (/^v_wmma/.test(op)) return 4096;
    if (/^v_dual_fmac|^v_dual_fmaak|^v_dual_fmamk/.test(op))
      return lanes * (t.match(/v_dual_(fmac|fma)/g)?.length ?? 1);
    if (/^v_pk_fma_f16|^v_dot2/.test(op)) return 2 * lanes;
    if (/^v_fma_mix|^v_fma_f32|^v_fmac_f32|^v_fmamk|^v_fmaak|^v_mad_f32|^v_mac_f32|^v_mad_mix/.test(op)) return lanes;
    if (/^v_fma_f16|^v_fmac_f16/.test(op)) return lanes;
    return 0;
  };
  const loop = loopOf(lines, work, ({ op }) => op.startsWith('v_pk_fma_f16'));
  const mix: Record<string, number> = {};
  let valu = 0;
  let matrix = 0;
  let lds = 0;
  let madds = 0;
  const half = lanes === 64 ? 2 : 1;
  const wmma = gpu.startsWith('gfx12') ? 16 : 32;
  for (const line of loop) {
    const { op } = line;
    madds += work(line);
    if (!op) continue;
    if (/^v_wmma/.test(op)) {
      count(mix, 'matrix');
      matrix += wmma;
    } else if (/^v_dual/.test(op)) {
      count(mix, 'dual');
      valu += half;
    } else if (/^v_pk_fma|^v_dot2/.test(op)) {
      count(mix, 'packed fma');
      valu += half;
    } else if (work(line)) {
      count(mix, /mix/.test(op) ? 'fma_mix' : /f16/.test(op) ? 'fma f16' : 'fma');
      valu += half;
    } else if (/^v_cvt|^v_pack/.test(op)) {
      count(mix, 'convert');
      valu += half;
    } else if (/^v_(exp|log|rcp|rsq|sqrt)/.test(op)) {
      count(mix, 'special');
      valu += 4 * half;
    } else if (/^v_/.test(op)) {
      count(mix, /_(add|sub|mul|max|min)_f|^v_pk_/.test(op) ? 'float' : 'integer');
      valu += half;
    } else if (/^ds_(load|read|store|write)/.test(op)) {
      const bytes =
        (Number(/b(8|16|32|64|96|128)(?:_|$)/.exec(op)?.[1] ?? 32) / 8) *
        (/2(st64)?_/.test(op) || /load_2addr|store_2addr|read2|write2/.test(op) ? 2 : 1);
      count(
        mix,
        `${/load|read/.test(op) ? 'lds read' : 'lds write'} ${bytes * 8}${/u16_d16|_d16|_u16|_i16/.test(op) ? ' (16-bit)' : ''}`,
      );
      lds += Math.max(1, (bytes * lanes) / 64);
    } else if (/^ds_/.test(op)) {
      count(mix, 'lds other');
      lds += 1;
    } else if (/^(buffer|global|flat)_load/.test(op))
      count(mix, `global read ${Number(/b(8|16|32|64|96|128)/.exec(op)?.[1] ?? 16)}`);
    else if (/^(buffer|global|flat)_store/.test(op)) count(mix, 'global write');
    else if (/^s_waitcnt|^s_wait/.test(op)) count(mix, 'wait');
    else if (/^s_barrier/.test(op)) count(mix, 'barrier');
    else if (/^s_/.test(op)) count(mix, 'scalar');
  }
  const peak = matrix ? 4096 / wmma : gpu.startsWith('navi1') || gpu.startsWith('navi2') ? 32 : 64;
  return { stats: { ...stats, wave }, ...conclude(mix, madds, { vector: valu + matrix, lds }, peak) };
}
