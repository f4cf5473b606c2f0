// NVIDIA's streaming multiprocessors as far as the model knows them: rates by generation, and how many workgroups fit.
// Where each rate comes from: docs/design/gpu-compilers.md.

export interface Sm {
  name: string;
  card: string;
  sms: number;
  ghz: number;
  sharedBytes: number;
  warps: number;
  blocks: number;
  /** Cycles of a partition's tensor core for an m16n8k16 product of f16 with f32 sums; and until its result can be used. */
  hmma: number;
  hmmaLatency: number;
  /** Cycles a warp's instruction holds its partition's unit. */
  ffma: number;
  hfma2: number;
  int: number;
  mufu: number;
  /** Bytes a clock from L2 to an SM; cycles from a load's issue to its result. */
  l2Bytes: number;
  l2Latency: number;
}

const common = { int: 2, mufu: 8, hmmaLatency: 33 };
export const SMS: Record<string, Sm> = {
  sm_89: {
    ...common,
    name: 'sm_89',
    card: 'RTX 4090',
    sms: 128,
    ghz: 2.52,
    sharedBytes: 100 << 10,
    warps: 48,
    blocks: 24,
    hmma: 32,
    ffma: 1,
    hfma2: 1,
    l2Bytes: 48,
    l2Latency: 290,
  },
  sm_86: {
    ...common,
    name: 'sm_86',
    card: 'RTX 3090',
    sms: 82,
    ghz: 1.7,
    sharedBytes: 100 << 10,
    warps: 48,
    blocks: 16,
    hmma: 32,
    ffma: 1,
    hfma2: 1,
    l2Bytes: 48,
    l2Latency: 260,
  },
  sm_80: {
    ...common,
    name: 'sm_80',
    card: 'A100',
    sms: 108,
    ghz: 1.41,
    sharedBytes: 164 << 10,
    warps: 64,
    blocks: 32,
    hmma: 8,
    ffma: 2,
    hfma2: 1,
    l2Bytes: 64,
    l2Latency: 260,
  },
  sm_90: {
    ...common,
    name: 'sm_90',
    card: 'H100 SXM (mma.sync)',
    sms: 132,
    ghz: 1.755,
    sharedBytes: 228 << 10,
    warps: 64,
    blocks: 32,
    hmma: 6.4,
    ffma: 1,
    hfma2: 1,
    l2Bytes: 64,
    l2Latency: 270,
  },
};

export interface Occupancy {
  blocks: number;
  warps: number;
  limit: string;
}

/** Workgroups an SM holds. Registers are given out 8 a thread and 256 a warp at a time, shared memory 128 bytes, 1 KiB reserved a block. */
export function occupancy(sm: Sm, threads: number, registers: number, shared: number): Occupancy {
  const warps = Math.ceil(threads / 32);
  const perWarp = Math.ceil(registers / 8) * 8 * 32;
  const limits: [string, number][] = [
    ['registers', Math.floor(65536 / perWarp / warps)],
    ['shared memory', Math.floor(sm.sharedBytes / (Math.ceil(shared / 128) * 128 + 1024))],
    ['warps', Math.floor(sm.warps / warps)],
    ['blocks', sm.blocks],
  ];
  const [limit, blocks] = limits.reduce((a, b) => (b[1] < a[1] ? b : a));
  return { blocks, warps: blocks * warps, limit };
}
