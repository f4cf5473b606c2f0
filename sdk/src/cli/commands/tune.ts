// `kontext tune`: measures which schedules run a model's shapes fastest on the GPU at hand, and keeps the answer in a file.
import { resolve } from 'node:path';
import type { CompileRequest } from '../../../../kernels-codegen/src/compile.ts';
import type { Quantization as StoredAs } from '../../../../kernels-codegen/src/plan/weight-request.ts';
import { openDevice } from '../../../../runtime/src/gpu/open.ts';
import { writeWhole } from '../../files/whole.ts';
import { patches } from '../../kontext/latents.ts';
import { LOAD_OPTIONS, type Precision, REQUEST_OPTIONS } from '../../kontext/options.ts';
import { completeRequest, PART_OF, type ShapeRequest } from '../../kontext/parts.ts';
import { justInTime } from '../../kontext/programs.ts';
import type { ImageSize } from '../../kontext/types.ts';
import { openModel } from '../../model/open.ts';
import type { ShapeResult } from '../../tune/measure.ts';
import { gainOf, profileOf, tune as tuneShapes } from '../../tune/tune.ts';
import { defineCommand, usage } from '../grammar.ts';
import { headersOf } from '../model-flags.ts';
import { statusLine } from '../progress-line.ts';
import { numberFrom } from '../request-flags.ts';

const KNOWN_MODEL = 'flux1-kontext-dev';
const CLIP_TOKENS = 77;

export const tune = defineCommand({
  summary: 'Measure which schedules run a model’s kernels fastest on this GPU, and write a profile for --profile.',
  usage: ['[--model PATH] [--size WxH] [--minutes 2] [-o tuning.json]'],
  examples: ['kontext tune --model models/kontext --minutes 5 -o tuning.json'],
  notes:
    'Every candidate must give the plain kernel’s result before it may win. Leave the machine alone meanwhile. A profile holds for the ' +
    'adapter it was measured on, and for its driver; kontext edit --profile FILE uses it.',
  flags: {
    model: { value: 'PATH|URL|demo', help: `folder of the model (default: ${KNOWN_MODEL}, whose shapes are known)` },
    size: { value: 'WxH', list: true, help: 'of pictures (default: the model’s first preferred size, or 1024x1024)' },
    reference: { value: 'WxH', list: true, help: 'of references (default: the picture’s own size)' },
    quantization: {
      value: 'none|f16|q8|q4',
      help: 'storage of the large matrices (default: as the model’s files have them, or f16)',
    },
    precision: { value: LOAD_OPTIONS.precision.choices.join('|'), help: LOAD_OPTIONS.precision.help },
    minutes: { value: 'N', help: 'time to spend; what has most work is measured first (default: 2)' },
    adapter: { value: 'NAME', help: 'part of the GPU’s name, as doctor shows it' },
    output: { value: 'FILE', short: 'o', help: 'where the profile goes (default: tuning.json)' },
    json: { help: 'print what was measured as JSON' },
  },
  /** @throws KontextError `webgpu-unavailable`, `invalid-request`, `gpu-validation` when a kernel is wrong on this driver */
  async run({ words, values, signal }) {
    if (words.length > 0) throw usage(`kontext tune takes no words, but got "${words[0]}".`);
    const minutes = values.minutes === undefined ? 2 : numberFrom('minutes', values.minutes);
    if (!(minutes > 0 && minutes <= 24 * 60))
      throw usage(`--minutes is ${minutes}; it must be above 0, a day at most.`);
    const precision = LOAD_OPTIONS.precision.choices.find((name) => name === (values.precision ?? 'auto'));
    if (!precision)
      throw usage(`--precision is "${values.precision}"; it must be of ${LOAD_OPTIONS.precision.choices.join(', ')}.`);
    const output = resolve(values.output ?? 'tuning.json');
    const gpu = await openDevice({ unchecked: true, ...(values.adapter !== undefined && { adapter: values.adapter }) });
    try {
      const requests = await requestsOf(values, precision, gpu.report);
      const { target } = requests[0]!;
      const name = gpu.report.description || target.name;
      if (!values.json) console.log(`${name}, ${target.tier}; up to ${minutes} min`);
      const line = statusLine(process.stderr);
      const { results, left } = await tuneShapes(gpu, requests, {
        target,
        budgetMs: minutes * 60_000,
        signal,
        onShape: (result, done, total) => {
          line.write('');
          if (!values.json) console.log(row(result));
          line.write(`shape ${done} of ${total}`);
        },
      }).finally(() => line.write(''));
      const profile = profileOf(results, gpu.report);
      await writeWhole(output, `${JSON.stringify(profile, undefined, 1)}\n`);
      if (values.json) {
        console.log(JSON.stringify({ adapter: name, gain: gainOf(results), left, gains: profile.gains, output }));
        return;
      }
      const refused = results.reduce((sum, r) => sum + r.refused, 0);
      const tried = results.reduce((sum, r) => sum + r.tried, 0);
      console.log(
        `\n${results.length} shapes measured, ${profile.gains.length} faster than estimated; their dispatches together ${gainOf(results).toFixed(2)}×. ` +
          `${tried} candidates, ${refused} of them refused as wrong or by the driver.` +
          (left > 0 ? ` ${left} shapes were left for want of time: give more --minutes.` : ''),
      );
      console.log(`${values.output ?? 'tuning.json'}: use it with --profile, or Kontext.load's option profile.`);
    } finally {
      gpu.destroy();
    }
  },
});

function row({ shape, estimateMs, best, tried }: ShapeResult): string {
  const name = `${shape.family} ${shape.key}`.padEnd(46);
  const estimate = `${estimateMs.toFixed(3)} ms`.padStart(14);
  const found = best
    ? `${best.milliseconds.toFixed(3)} ms, ${(estimateMs / best.milliseconds).toFixed(2)}×  ${best.label}`
    : 'the estimate’s choice stays';
  return `${name} ${String(shape.dispatches).padStart(4)}×${estimate}  of ${String(tried + 1).padStart(2)}: ${found}`;
}

/** What an edit and a generation of each size compute on the GPU. */
async function requestsOf(
  values: { [name in 'model' | 'quantization']?: string } & { [name in 'size' | 'reference']?: string[] },
  precision: Precision,
  device: Parameters<ReturnType<typeof justInTime>['target']>[0],
): Promise<CompileRequest[]> {
  const provider = justInTime();
  const target = await provider.target(device, precision);
  const quantization = (['none', 'f16', 'q8', 'q4'] as const).find((name) => name === values.quantization);
  if (values.quantization !== undefined && !quantization)
    throw usage(`--quantization is "${values.quantization}"; it must be of none, f16, q8, q4.`);
  const references = values.reference?.map(sizeFrom);
  if (values.model === undefined || values.model === KNOWN_MODEL) {
    const { FLUX1_KONTEXT_DEV: specs } = await import('../../../../kernels-codegen/src/models/specs.ts');
    return shapesOf(values.size?.map(sizeFrom) ?? [{ width: 1024, height: 1024 }], references).map((shape) => {
      const part = PART_OF[shape.component] as keyof typeof specs;
      const large = part === 'transformer' || part === 't5';
      const stored: StoredAs = large ? (quantization ?? 'f16') : 'none';
      return { ...shape, spec: specs[part], target, quantization: stored } as CompileRequest;
    });
  }
  const model = await openModel(await headersOf(values.model));
  try {
    const specs = await provider.specs(model);
    const [width, height] = model.defaults.preferredSizes?.[0] ?? [1024, 1024];
    const { steps, maxSequenceLength } = model.defaults;
    return shapesOf(values.size?.map(sizeFrom) ?? [{ width, height }], references, maxSequenceLength, steps).map(
      (shape) => completeRequest(shape, { specs, target, model, quantization: quantization ?? 'auto' }),
    );
  } finally {
    await model.close();
  }
}

function shapesOf(
  sizes: readonly ImageSize[],
  references: readonly ImageSize[] | undefined,
  textTokens = REQUEST_OPTIONS.maxSequenceLength.default!,
  steps = REQUEST_OPTIONS.steps.default!,
): ShapeRequest[] {
  return [
    { component: 'clip', tokens: CLIP_TOKENS },
    { component: 't5', tokens: textTokens },
    { component: 'modulation', steps },
    ...sizes.flatMap((size): ShapeRequest[] => [
      { component: 'denoise', textTokens, image: patches(size), references: [] },
      ...(references ?? [size]).flatMap((reference): ShapeRequest[] => [
        { component: 'denoise', textTokens, image: patches(size), references: [patches(reference)] },
        { component: 'vae-encode', ...reference },
      ]),
      { component: 'vae-decode', ...size },
    ]),
  ];
}

function sizeFrom(text: string): ImageSize {
  const [, width, height] = /^(\d+)x(\d+)$/.exec(text) ?? [];
  const size = { width: Number(width), height: Number(height) };
  if (Object.values(size).every((side) => side > 0 && side % 16 === 0)) return size;
  throw usage(`"${text}" is no size; write WIDTHxHEIGHT in pixels, multiples of 16, as 1024x1024.`);
}
