// Time of one velocity evaluation without adapters, with one and with four of rank 16, all linears, in one run on one GPU.
// A model of FLUX's form that a software adapter runs in a second; before it the predicted share of work at the real shapes.
// `npm run bench:adapters -- ROUNDS`; with 0 rounds only what is predicted, which needs no GPU.
import { compile } from '../../kernels-codegen/src/compile.ts';
import { checkpointShapes } from '../../kernels-codegen/src/models/checkpoint-shapes.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import { targetByName, targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
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
    hidden: 256,
    heads: 2,
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

const pace = new Pace();
const predicted = (program: Program) => program.dispatches.reduce((sum, dispatch) => sum + pace.predict(dispatch), 0);
const percent = (share: number) => `${share < 1 ? '−' : '+'}${Math.abs(100 * (share - 1)).toFixed(1)} %`;
const kinds = [0, 1, 4];

console.log(
  'FLUX.1 Kontext [dev] in q8, 1024×1024 with a reference as large, 512 tokens of text: predicted of a step\n',
);
console.log('| adapters of rank 16 | work | dispatches |\n| --- | --- | --- |');
const real = kinds.map((adapters) => programOf(true, adapters, targetByName('nvidia')));
for (const [i, program] of real.entries()) {
  const share = i === 0 ? '' : percent(predicted(program) / predicted(real[0]!));
  console.log(`| ${kinds[i] || 'none'} | ${share} | ${program.dispatches.length} |`);
}
if (ROUNDS === 0) process.exit(0);

// The first slice has every kernel in it, which a software adapter on a busy machine compiles for minutes.
const gpu = await openDevice({ hangMs: 1_500_000 });
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
console.log(
  `${gpu.report.description}, ${target.tier}; medians of ${ROUNDS} steps, alternating; least and most in brackets\n`,
);
console.log('| adapters of rank 16 | ms a step | to none | predicted | dispatches |\n| --- | --- | --- | --- | --- |');
for (const [i, adapters] of kinds.entries()) {
  const list = times[i]!;
  const { program } = executables[i]!;
  const range = `${Math.min(...list).toFixed(0)} to ${Math.max(...list).toFixed(0)}`;
  const share = (of: number, none: number) => (adapters === 0 ? '' : percent(of / none));
  console.log(
    `| ${adapters || 'none'} | ${median(list).toFixed(1)} (${range}) | ${share(median(list), median(times[0]!))} | ` +
      `${share(predicted(program), predicted(executables[0]!.program))} | ${program.dispatches.length} |`,
  );
}
for (const executable of executables) await executable.dispose();
gpu.destroy();
