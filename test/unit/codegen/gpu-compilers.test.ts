// The instrument around GPU compilers: what its table refuses, and that its simulation sees what it should.
import { expect, it } from 'vitest';
import { parseNak } from '../../gpu-compilers/nak.ts';
import type { Row } from '../../gpu-compilers/rows.ts';
import { changes, complaints, section, sectionIn } from '../../gpu-compilers/table.ts';
import { traceMainLoop } from '../../gpu-compilers/warp.ts';

const row = (part: Partial<Row> = {}): Row => ({
  program: 'denoise',
  label: 'matmul matrix f16 128×128×32 (8704×9216×3072 f16)',
  uses: 1,
  flops: 100,
  threads: 128,
  ms: 500,
  share: 0.5,
  registers: 200,
  spills: 0,
  shared: 20480,
  resident: '2 × 4 warps (registers)',
  busy: { sm_89: 0.9, sm_90: 0.45 },
  limit: 'tensor',
  mix: {},
  ...part,
});
const committed = sectionIn(`# Title\n\n${section('nvidia-ada', [row()])}\n${section('amd', [row()])}`, 'nvidia-ada');

it('finds a section and no change where there is none', () => {
  expect(committed).toContain('sm_89 90 %');
  expect(complaints('nvidia-ada', [row()], committed)).toEqual([]);
  expect(changes([row()], committed)).toEqual([]);
});

it('compares a kernel with the one of another tile', () => {
  const slower = row({ label: 'matmul f16 64×64×32 (8704×9216×3072 f16)', busy: { sm_89: 0.83, sm_90: 0.45 } });
  expect(complaints('nvidia-ada', [slower], committed)).toEqual([
    'nvidia-ada: denoise matmul f16 64×64×32 (8704×9216×3072 f16): sm_89 83 %, the committed table has 90 %',
  ]);
  // What is simulated moves with the order of instructions; what is counted does not.
  expect(complaints('nvidia-ada', [row({ busy: { sm_89: 0.85, sm_90: 0.45 } })], committed)).toEqual([]);
  expect(changes([slower], committed)).toHaveLength(1);
});

it('refuses spills, refusals and slow compilations, of cold kernels too', () => {
  const cold = { share: 0.001 };
  expect(complaints('x', [row({ ...cold, spills: 3 })], undefined)[0]).toContain('3 spills');
  expect(complaints('x', [row({ ...cold, error: 'no' })], undefined)[0]).toContain('refused: no');
  expect(complaints('x', [row({ ...cold, ms: 10_001 })], undefined)[0]).toContain('compiled for 10.0 s');
  expect(complaints('x', [row({ ...cold, busy: {} })], undefined)).toEqual([]);
});

it('counts bank conflicts and turns of a loop from addresses', () => {
  const listing = (shift: number): string => `workgroup_size: 32, 1, 1
shared_size: 4096
NAK IR after calc_instr_deps:
block 0 L0 [] {
r0 = s2r sr[0x0] // delay=1
r1 = shf.l.u32 r0 rZ ${shift} // delay=1
r2 = mov 0 // delay=1
}
block 1 L1 [] {
r3 = ld.shared.b32 [r1] // delay=1
r4 = ffma r3 r3 r4 // delay=1
r2 = iadd3 r2 1 rZ // delay=1
p0 = isetp.lt.u32 r2 8 // delay=1
@p0 bra L1 // delay=1
}
block 2 L2 [] {
exit // delay=1
}
`;
  const cost = (shift: number): number | undefined => {
    const { loop, steps } = traceMainLoop(parseNak(listing(shift))!);
    expect(loop).toBeDefined();
    expect(steps.map((s) => s.instr.op)).toEqual(['ld.shared.b32', 'ffma', 'iadd3', 'isetp.lt.u32', 'bra']);
    return steps[0]!.cost;
  };
  expect(cost(2)).toBe(1);
  expect(cost(3)).toBe(2);
  expect(cost(7)).toBe(32);
});
