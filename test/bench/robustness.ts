// What safety costs, each with and without in turn, in one process: bounds checks in an edit, and the look for NaN, infinities and
// matrices of zeros while weights are made. `npm run bench:robustness`
// Programs compiled here and signed bundles run without bounds checks; bundles that nobody signed run with them (Node; pages always check).
import { openDevice } from '../../runtime/src/index.ts';
import { storedLayout } from '../../runtime/src/program/formats.ts';
import type { WeightFormat } from '../../runtime/src/program/types.ts';
import { PARAMS_BYTES } from '../../runtime/src/weights/seen.ts';
import { packParams, transcodeGrid, transcodeKernel } from '../../runtime/src/weights/transcode.ts';
import { SOURCE_TYPES } from '../../runtime/src/weights/types/index.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { pipelineModel } from '../support/pipeline-model.ts';

const rounds = Number(process.argv[2] ?? 9);
const [STORAGE, UNIFORM, COPY_DST] = [0x80, 0x40, 0x08];
const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;

/** Medians of the two, taken in turn, and what the second costs. */
async function compare(label: string, without: () => Promise<number>, with_: () => Promise<number>): Promise<void> {
  const times: [number[], number[]] = [[], []];
  await without();
  await with_();
  for (let round = 0; round < rounds; round++) {
    const order = [0, 1] as const;
    for (const i of round % 2 === 0 ? order : [...order].reverse()) {
      times[i]!.push(await (i === 0 ? without : with_)());
    }
  }
  const [a, b] = times.map(median) as [number, number];
  const ratio = median(times[0].map((ms, i) => times[1][i]! / ms));
  console.log(
    `${label}: ${a.toFixed(1)} ms without, ${b.toFixed(1)} ms with; ${((ratio - 1) * 100).toFixed(1)} % (medians of ${rounds} pairs)`,
  );
}

/** Milliseconds of `repeat` transcodes of a bfloat16 matrix. */
async function transcoding(gpu: Awaited<ReturnType<typeof openDevice>>, format: WeightFormat, checked: boolean) {
  const [rows, cols, repeat] = [1024, 2048, 4];
  const spec = { type: SOURCE_TYPES.BF16!, format, scaled: false, checked };
  const { device } = gpu;
  const { pipeline, layout } = await gpu.kernel(transcodeKernel(spec));
  const { bytes, sections } = storedLayout(format, rows, cols);
  const make = (size: number, usage: number) => device.createBuffer({ size: Math.ceil(size / 16) * 16, usage });
  const source = make(2 * rows * cols, STORAGE | COPY_DST);
  const values = Uint16Array.from({ length: rows * cols }, (_, i) => 0x3c00 + (i % 0x200));
  device.queue.writeBuffer(source, 0, values);
  const count = rows * cols;
  const [x, y] = transcodeGrid(count, spec);
  const params = make(PARAMS_BYTES, UNIFORM | COPY_DST);
  const shape = { count, outCols: cols, srcCols: cols, first: 0, padIn: cols, channels: cols, taps: 1, start: 0 };
  device.queue.writeBuffer(params, 0, packParams({ ...shape, sections: sections, slot: 0 }, x));
  const buffers = [params, source, make(bytes, STORAGE), ...(checked ? [make(16, STORAGE)] : [])];
  const group = device.createBindGroup({
    layout,
    entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  return async () => {
    const started = performance.now();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    for (let i = 0; i < repeat; i++) pass.dispatchWorkgroups(x, y);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await gpu.idle();
    return performance.now() - started;
  };
}

const gpu = await openDevice({ unchecked: true });
console.log(gpu.report.description || gpu.report.device);
for (const format of ['f16', 'q8', 'q4'] as const) {
  const [plain, looking] = [await transcoding(gpu, format, false), await transcoding(gpu, format, true)];
  await compare(`BF16 to ${format}, looking for damage`, plain, looking);
}
gpu.destroy();

const size = { width: 64, height: 64 };
const request = { prompt: 'grey', steps: 4, seed: 7, maxSequenceLength: 24, size, output: 'latents' } as const;
const edits = async (unchecked: boolean) => {
  const kontext = await Kontext.load(pipelineModel(), { memory: 'resident', device: { unchecked, hangMs: 3_600_000 } });
  return async () => (await kontext.generate(request)).timings.denoiseMs;
};
await compare('denoising with bounds checks', await edits(true), await edits(false));
process.exit(0);
