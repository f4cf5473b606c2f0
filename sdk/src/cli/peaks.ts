// What GPUs can do at best, for roofline estimates: published peaks, by the name of the GPU or of a target profile.
// A measured figure of one's own is better than any of these; `TFLOPS,GB/s` takes it.
import type { Tier } from '../../../kernels-codegen/src/targets/types.ts';
import { usage } from './grammar.ts';

export interface Peak {
  flopsPerSecond: number;
  bytesPerSecond: number;
}

/** TFLOP/s in f32, in f16 and with matrix units (f16 operands, f32 sums, dense); GB/s of memory. */
type Figures = [f32: number, f16: number, matrix: number, memory: number];

const GPUS: Record<string, Figures> = {
  // NVIDIA's H100 (SXM) and A100 (40 GB) data sheets; the Ada architecture's white paper, appendix A.
  h100: [67, 134, 989, 3350],
  a100: [19.5, 78, 312, 1555],
  'rtx-4090': [82.6, 82.6, 165.2, 1008],
  'rtx-4080': [48.7, 48.7, 97.5, 716.8],
  // Apple's announcements of the chips. f16 and simdgroup matrices run at the rate of f32.
  m1: [2.6, 2.6, 2.6, 68.3],
  m2: [3.6, 3.6, 3.6, 100],
  'm1-max': [10.4, 10.4, 10.4, 400],
  'm2-max': [13.6, 13.6, 13.6, 400],
  // Intel's specifications: Xe cores × 128 lanes × 2 × clock, f16 twice that; matrix units half their int8 rate.
  'arc-a770': [17.2, 34.4, 137, 560],
  'arc-b580': [13.7, 27.3, 116, 456],
  // AMD's specification, with dual issue.
  'rx-7900-xtx': [61.4, 122.8, 122.8, 960],
};

/** The GPU that stands for a target profile; phones and software have no published peak. */
const OF_TARGETS: Record<string, string> = {
  nvidia: 'rtx-4090',
  'nvidia-matrix': 'rtx-4090',
  'nvidia-f32': 'rtx-4090',
  'apple-m': 'm2',
  'apple-m-matrix': 'm2',
  'intel-xe': 'arc-b580',
  'amd-rdna': 'rx-7900-xtx',
};

/**
 * @param text a GPU, a target profile, or `TFLOPS,GB/s`
 * @param tier of the program, which says what arithmetic it can use
 * @throws KontextError `invalid-request` listing the names
 */
export function peakOf(text: string, tier: Tier): Peak {
  const known = GPUS[OF_TARGETS[text] ?? text];
  const [arithmetic, memory] = known
    ? [known[tier === 'f32' ? 0 : tier === 'subgroup-matrix' ? 2 : 1], known[3]]
    : text.split(',').map(Number);
  if (arithmetic && memory && arithmetic > 0 && memory > 0) {
    return { flopsPerSecond: arithmetic * 1e12, bytesPerSecond: memory * 1e9 };
  }
  throw usage(
    `--roofline is "${text}"; give a GPU (${Object.keys(GPUS).join(', ')}), a target of these makers ` +
      `(${Object.keys(OF_TARGETS).join(', ')}), or peaks as TFLOPS,GB/s: 300,2000.`,
  );
}
