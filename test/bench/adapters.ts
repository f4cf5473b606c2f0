// Time of one velocity evaluation without adapters, with one and with four of rank 16, all linears, in one run on one GPU.
// A model of FLUX's form that a software adapter runs in a second; for the real shapes the predicted share of work is printed beside.
import { compile } from '../../kernels-codegen/src/compile.ts';
import { checkpointShapes } from '../../kernels-codegen/src/models/checkpoint-shapes.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import { TARGETS, targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { Pace } from '../../runtime/src/execute/pace.ts';
import { Executable, openDevice, SlabPool, WeightStore } from '../../runtime/src/index.ts';
import type { Program } from '../../runtime/src/program/types.ts';
import type { WeightSource } from '../../runtime/src/weights/source.ts';
import { F32 } from '../../runtime/src/weights/types/floats.ts';

const RANK = 16;
const ROUNDS = Number(process.argv[2] ?? 7);

const specs = {
  ...FLUX1_KONTEXT_DEV,
  transformer: {
    ...FLUX1_KONTEXT_DEV.transformer,
    hidden: 512,
    heads: 4,
    doubleBlocks: 1,
    singleBlocks: 2,
    textWidth: 256,
    pooledWidth: 64,
  },
};
const grid = { height: 8, width: 8 };

function programOf(real: boolean, adapters: number, target: Parameters<typeof compile>[0]['target']): Program {
  const spec = (real ? FLUX1_KONTEXT_DEV : specs).transformer;
  const side = real ? { height: 64, width: 64 } : grid;
  const shape = { component: 'denoise' as const, spec, textTokens: real ? 512 : 64, image: side, references: [side] };
  return compile({ ...shape, target, quantization: 'q8', ...(adapters > 0 ? { room: RANK * adapters } : {}) });
}

const gpu = await openDevice();
const target = targetFor(gpu.report);
const shapes = checkpointShapes(specs).transformer;
const values = Float32Array.from({ length: 2 ** 16 }, (_, i) => Math.sin(i * 12.9898) / 24);
const source: WeightSource = {
  label: 'random weights',
  tensors: new Map(
    [...shapes].map(([name, { shape }]) => {
      return [name, { dtype: 'F32', type: F32, shape, bytes: 4 * shape.reduce((a, b) => a * b, 1) }];
    }),
  ),
  async read(_name, start, end) {
    const bytes = new Uint8Array(end - start);
    const block = new Uint8Array(values.buffer);
    for (let at = 0; at < bytes.length; at += block.length) bytes.set(block.subarray(0, bytes.length - at), at);
    return bytes;
  },
  close: async () => {},
};
const weights = new WeightStore(gpu, source);
const slabs = new SlabPool(gpu);

const kinds = [0, 1, 4];
const executables: Executable[] = [];
for (const adapters of kinds) {
  const executable = await Executable.create(gpu, programOf(false, adapters, target), { weights, slabs });
  for (const { name, shape, direction, type } of executable.program.ports) {
    if (direction !== 'in' || type === 'u32') continue;
    const count = shape.reduce((a, b) => a * b, 1);
    executable.write(
      name,
      Float32Array.from({ length: count }, (_, i) => Math.cos(i) / 8),
    );
  }
  await executable.run();
  executables.push(executable);
}
// Alternating, so that a busy machine is busy for all of them.
const times = kinds.map(() => [] as number[]);
for (let round = 0; round < ROUNDS; round++) {
  for (const [i, executable] of executables.entries()) times[i]!.push((await executable.run()).milliseconds);
}
const median = (list: number[]): number => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]!;
const pace = new Pace();
const predicted = (program: Program) => program.dispatches.reduce((sum, dispatch) => sum + pace.predict(dispatch), 0);
const real = TARGETS.find(({ name }) => name === 'nvidia')!;
console.log(`${gpu.report.description}, ${target.tier}; medians of ${ROUNDS}, alternating`);
console.log('adapters  ms/step  ratio  dispatches  predicted ratio  at 1024×1024 + 1024×1024 of FLUX (nvidia)');
for (const [i, adapters] of kinds.entries()) {
  const ratio = median(times[i]!) / median(times[0]!);
  const own = predicted(executables[i]!.program) / predicted(executables[0]!.program);
  const full = predicted(programOf(true, adapters, real)) / predicted(programOf(true, 0, real));
  console.log(
    [
      String(adapters).padStart(8),
      median(times[i]!).toFixed(1).padStart(8),
      ratio.toFixed(3).padStart(6),
      String(executables[i]!.program.dispatches.length).padStart(11),
      own.toFixed(3).padStart(16),
      full.toFixed(4).padStart(42),
    ].join(' '),
  );
}
for (const executable of executables) await executable.dispose();
gpu.destroy();
