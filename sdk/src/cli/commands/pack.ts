// `kontext pack`: a model made ready for the web, in shards that are copied to the GPU as they are.
import { openDevice } from '../../../../runtime/src/gpu/open.ts';
import { demoModel } from '../../model/demo.ts';
import { openModel } from '../../model/open.ts';
import { packModel } from '../../model/pack.ts';
import { PACK_FORMATS, type PackFormat, type PackRules } from '../../model/pack-formats.ts';
import { PART_NAMES } from '../../model/packed.ts';
import { resolveSource } from '../../model/resolve.ts';
import { byteProgress } from '../byte-progress.ts';
import { defineCommand, usage } from '../grammar.ts';

export const pack = defineCommand({
  summary:
    'Write a web-ready model: shards of at most 64 MiB in the GPU’s own layout, manifest, tokenizer tables, lock.',
  usage: ['MODEL -o DIR'],
  examples: [
    'kontext pack models/kontext -o web/kontext-q4',
    "kontext pack demo -o web/demo --quantization q4 --quantization t5=q8 --quantization 'double_blocks.*.txt_attn.*=q8'",
  ],
  notes:
    'Kontext.load opens the folder or its URL; loading copies bytes and transcodes nothing. With q4, modulation is packed in q8 unless a ' +
    'rule names it. The GPU that packs quantises as it would while loading.',
  flags: {
    output: { value: 'DIR', short: 'o', help: 'new folder' },
    quantization: {
      value: `[PART|PATTERN=]${PACK_FORMATS.join('|')}`,
      list: true,
      help: 'format of the matrices (default: q4), of one part (transformer, t5, clip, vae), or of tensors by name with *; the last that fits wins',
    },
    licence: { value: 'TEXT', help: 'what users must know of the model’s licence; goes into the manifest' },
    adapter: { value: 'NAME', help: 'part of the GPU’s name, as doctor shows it' },
    json: { help: 'print sizes as JSON' },
  },
  /** @throws KontextError `invalid-request`, `weights-invalid`, `webgpu-unavailable`, `aborted` */
  async run({ words, values, signal }) {
    const [place, ...more] = words;
    const folder = values.output;
    if (place === undefined || more.length > 0) throw usage('kontext pack takes one model.');
    if (folder === undefined) throw usage('Where to? Give -o DIR.');
    const quantization = rulesFrom(values.quantization ?? []);
    const model = await openModel(await resolveSource(place === 'demo' ? demoModel() : place, { signal }), signal);
    try {
      const gpu = await openDevice(values.adapter === undefined ? {} : { adapter: values.adapter });
      const progress = byteProgress(process.stderr, 'packing');
      try {
        const report = await packModel(model, gpu, folder, {
          quantization,
          signal,
          onProgress: progress.show,
          ...(values.licence !== undefined && { licence: values.licence }),
        }).finally(progress.clear);
        if (values.json) return console.log(JSON.stringify(report));
        const mb = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`.padStart(11);
        for (const part of PART_NAMES) console.log(`${part.padEnd(12)}${mb(report.parts[part])}`);
        console.log(`${'all'.padEnd(12)}${mb(report.bytes)} in ${report.files} files: ${folder}`);
      } finally {
        gpu.destroy();
      }
    } finally {
      await model.close();
    }
  },
});

/** @throws KontextError `invalid-request` */
function rulesFrom(list: readonly string[]): PackRules {
  const rules: Record<string, PackFormat> = {};
  for (const word of list.length > 0 ? list : ['q4']) {
    const [, pattern, format] = /^(?:(.+)=)?([^=]+)$/.exec(word) ?? [];
    if (!PACK_FORMATS.some((known) => known === format)) {
      throw usage(
        `--quantization is "${word}"; give FORMAT, PART=FORMAT or PATTERN=FORMAT with ${PACK_FORMATS.join(', ')}.`,
      );
    }
    if (pattern === undefined) Object.assign(rules, { transformer: format, t5: format });
    else rules[pattern] = format as PackFormat;
  }
  return rules;
}
