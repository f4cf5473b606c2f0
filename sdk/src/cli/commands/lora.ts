// `kontext lora`: what an adapter file is, and what of it a model would use.
import { KontextError } from '../../../../runtime/src/errors.ts';
import { runsBeside } from '../../../../runtime/src/weights/adapters/factors.ts';
import type { Adapter, ModelTensors } from '../../../../runtime/src/weights/adapters/types.ts';
import { settingsOf } from '../../kontext/adapters/settings.ts';
import { openAdapterFile } from '../../kontext/adapters/shelf.ts';
import { openModel } from '../../model/open.ts';
import { defineCommand, usage } from '../grammar.ts';
import { adapterPlace } from '../lora-flag.ts';
import { headersOf } from '../model-flags.ts';

/** Listed in full; of more the rest is counted. */
const SHOWN = 10;

export const lora = defineCommand({
  summary: 'Show what an adapter file changes, and what of it cannot be used.',
  usage: ['FILE'],
  examples: [
    'kontext lora style.safetensors',
    'kontext lora demo --model demo',
    'kontext lora style.safetensors --model ~/models/FLUX.1-Kontext-dev --json',
  ],
  notes:
    'Without --model the file is matched with FLUX.1 [dev] and its relatives of the same sizes. Needs no GPU and no weights of the model.',
  flags: {
    model: { value: 'PATH|URL|demo', help: 'model it is for' },
    json: { help: 'print it as JSON' },
  },
  async run({ words, values, signal }) {
    const [file] = words;
    if (words.length !== 1 || file === undefined) throw usage('Which adapter? Give its file: kontext lora FILE.');
    const { tensors, label, close } = await modelOf(values.model, signal);
    try {
      const adapter = await openAdapterFile(adapterPlace(file), tensors, { signal }).catch((error: unknown) => {
        if (error instanceof KontextError && Array.isArray(error.details.unused)) {
          const list = (error.details.unused as { key: string; reason: string }[]).slice(0, SHOWN);
          console.error(list.map(({ key, reason }) => `  ${key}: ${reason}`).join('\n'));
        }
        throw error;
      });
      const report = describeAdapter(adapter);
      if (values.json) console.log(JSON.stringify(report));
      else console.log(lines(report, label).join('\n'));
      await adapter.close();
    } finally {
      await close();
    }
  },
});

type Report = ReturnType<typeof describeAdapter>;

/** What there is to say of an adapter, plain. */
export function describeAdapter(adapter: Adapter) {
  const { updates, unused, styles, bytes, metadata } = adapter;
  const kinds = count(updates.map(({ stored }) => stored.kind));
  const modules = new Set(updates.map(({ part, module }) => `${part} ${module}`));
  const matrices = updates.filter(({ cols }) => cols > 1);
  return {
    file: adapter.label,
    bytes,
    styles,
    kinds,
    ranks: count(matrices.map(({ rank }) => String(rank))),
    alphas: count(updates.map(({ alpha }) => (alpha === undefined ? 'none' : String(alpha)))),
    modules: modules.size,
    groups: count([...modules].map((name) => name.replace(/^transformer /, '').replace(/\b\d+\b/g, 'N'))),
    beside: matrices.filter(runsBeside).length,
    merged: updates.length - matrices.filter(runsBeside).length,
    settings: settingsOf({ metadata, label: adapter.label }),
    unused,
  };
}

function lines(report: Report, model: string): string[] {
  const list = (counts: Record<string, number>) =>
    Object.entries(counts)
      .map(([what, n]) => `${what} (${n})`)
      .join(', ');
  const settings = Object.entries(report.settings).map(([name, value]) => `${name} ${value}`);
  return [
    `${report.file}: ${(report.bytes / 2 ** 20).toFixed(2)} MiB, ${report.styles.join(' + ')} keys, for ${model}`,
    `  kinds    ${list(report.kinds)}`,
    `  ranks    ${list(report.ranks) || 'none'}`,
    `  alpha    ${list(report.alphas)}`,
    `  modules  ${report.modules}: ${list(report.groups)}`,
    `  runs     ${report.beside} beside their layers, ${report.merged} added to the weights when they load`,
    ...(settings.length > 0 ? [`  wants    ${settings.join(', ')}`] : []),
    ...(report.unused.length > 0
      ? [`  not used ${report.unused.length} keys; with strict: false the rest is used:`]
      : []),
    ...report.unused.slice(0, SHOWN).map(({ key, reason }) => `    ${key}: ${reason}`),
    ...(report.unused.length > SHOWN ? [`    and ${report.unused.length - SHOWN} more`] : []),
  ];
}

function count(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

async function modelOf(
  place: string | undefined,
  signal: AbortSignal,
): Promise<{ tensors: ModelTensors; label: string; close: () => Promise<void> }> {
  if (place === undefined) {
    const { FLUX1_KONTEXT_DEV } = await import('../../../../kernels-codegen/src/models/specs.ts');
    const { checkpointShapes } = await import('../../../../kernels-codegen/src/models/checkpoint-shapes.ts');
    return { tensors: checkpointShapes(FLUX1_KONTEXT_DEV), label: 'FLUX.1 [dev]', close: async () => {} };
  }
  const model = await openModel(await headersOf(place, signal), signal);
  const { transformer, clip, t5 } = model.parts;
  const tensors = { transformer: transformer.weights.tensors, clip: clip.weights.tensors, t5: t5.weights.tensors };
  return { tensors, label: model.label, close: () => model.close() };
}
