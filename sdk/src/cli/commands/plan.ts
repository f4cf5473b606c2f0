// `kontext plan`: what a model will need on this machine, without loading it.
import {
  LOAD_OPTIONS,
  type MemoryBudget,
  type Precision,
  type Quantization,
  REQUEST_OPTIONS,
} from '../../kontext/options.ts';
import type { RegionCache } from '../../kontext/types.ts';
import { demoModel } from '../../model/demo.ts';
import { Kontext } from '../../node.ts';
import { defineCommand, usage } from '../grammar.ts';
import { LORA_FLAGS, loraOptions } from '../lora-flag.ts';
import { cacheFrom, numberFrom } from '../request-flags.ts';

export const plan = defineCommand({
  summary:
    'Tell download, GPU memory by stage and work of every choice of memory and quantization, without loading weights.',
  usage: ['MODEL'],
  examples: ['kontext plan models/kontext --size 1024x1024 --memory 8GB'],
  flags: {
    size: { value: 'WxH', help: 'of the picture (default: the model’s squarest preferred size)' },
    reference: {
      value: 'WxH',
      list: true,
      help: 'size of each reference (default: one as large as the picture); none for text to image',
    },
    steps: { value: 'N', help: 'denoising steps' },
    'nag-scale': { value: 'X', help: 'plan for guided attention (NAG), which needs more of both; above 1' },
    'nag-sigma-end': { value: 'X', help: REQUEST_OPTIONS.nagSigmaEnd.help },
    cache: { value: 'region[:N]', help: 'plan for a region cache with a mask; needs --mask-share' },
    'mask-share': { value: 'X', help: 'share of the picture that may change, above 0 and at most 1' },
    memory: { value: 'AMOUNT', help: 'GPU memory there is, like 8GB: marks the choice that fits it best' },
    quantization: { value: LOAD_OPTIONS.quantization.choices.join('|'), help: 'plan for this one only' },
    precision: { value: LOAD_OPTIONS.precision.choices.join('|'), help: LOAD_OPTIONS.precision.help },
    ...LORA_FLAGS,
    adapter: { value: 'NAME', help: 'part of the GPU’s name, as doctor shows it' },
    json: { help: 'the same as JSON' },
  },
  /** @throws KontextError as `Kontext.plan`; `out-of-memory` when nothing fits the amount */
  async run({ words, values, signal }) {
    const [place, ...more] = words;
    if (place === undefined || more.length > 0) throw usage('kontext plan takes one model.');
    const references = values.reference?.filter((text) => text !== 'none').map(sizeFrom);
    const planned = await Kontext.plan(place === 'demo' ? demoModel() : place, {
      signal,
      ...(values.size !== undefined && { size: sizeFrom(values.size) }),
      ...(references && { references }),
      ...(values.steps !== undefined && { steps: Number(values.steps) }),
      ...(values['nag-scale'] !== undefined && { nagScale: numberFrom('nag-scale', values['nag-scale']) }),
      ...(values['nag-sigma-end'] !== undefined && {
        nagSigmaEnd: numberFrom('nag-sigma-end', values['nag-sigma-end']),
      }),
      ...(values.cache !== undefined && { cache: cacheFrom('cache', values.cache) as unknown as RegionCache }),
      ...(values['mask-share'] !== undefined && { maskShare: numberFrom('mask-share', values['mask-share']) }),
      ...(values.memory !== undefined && { memory: values.memory as MemoryBudget }),
      ...(values.quantization !== undefined && { quantization: values.quantization as Quantization }),
      ...(values.precision !== undefined && { precision: values.precision as Precision }),
      ...loraOptions(values),
      ...(values.adapter !== undefined && { device: { adapter: values.adapter } }),
    });
    if (values.json) return console.log(JSON.stringify(planned));
    const { request, download, choices, chosen } = planned;
    const all = Object.values(download).reduce((a, b) => a + b, 0);
    const { width, height } = request.size;
    const { guided, region } = request;
    const editing = [
      ...(guided === undefined ? [] : [`guided attention in ${guided} of the steps`]),
      ...(region ? [`${region.tokens} of the tokens alone in ${region.steps} of the steps`] : []),
    ];
    console.log(
      [
        `${width}×${height}, ${request.references.length} reference(s), ${request.steps} steps, ${request.maxSequenceLength} text tokens`,
        ...editing,
      ].join(', '),
    );
    const parts = Object.entries(download).map(([part, bytes]) => `${part} ${amount(bytes)}`);
    console.log(`Download ${amount(all)}: ${parts.join(', ')}\n`);
    console.log(
      '   memory    quantization   GPU peak    pictures        text  modulation     denoise      decode      read an edit',
    );
    for (const choice of choices) {
      const same = chosen?.memory === choice.memory && chosen.quantization === choice.quantization;
      const stages = Object.values(choice.stages).map((bytes) => amount(bytes).padStart(12));
      console.log(
        `${same ? '→' : ' '}  ${choice.memory.padEnd(10)}${choice.quantization.padEnd(12)}${amount(choice.gpuPeakBytes).padStart(12)}` +
          `${stages.join('')}${amount(choice.readBytes).padStart(18)}`,
      );
    }
    console.log(
      `\nWork ${(choices[0]!.flops / 1e12).toFixed(2)} TFLOP an edit; beside the process ${amount(choices[0]!.hostBytes)} of host memory for loading.`,
    );
  },
});

function sizeFrom(text: string) {
  const [, width, height] = /^(\d+)[x×](\d+)$/i.exec(text) ?? [];
  if (width === undefined) throw usage(`"${text}" is no size; write 1024x768.`);
  return { width: Number(width), height: Number(height) };
}

function amount(bytes: number): string {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
