// Flags about the model and how it is loaded, shared by every command that edits or generates.
import { readFile } from 'node:fs/promises';
import type { LoadOptions } from '../kontext/kontext.ts';
import { demoModel } from '../model/demo.ts';
import type { ModelSource } from '../model/open.ts';
import { resolveSource } from '../model/resolve.ts';
import { type Flags, type FlagValues, usage } from './grammar.ts';
import { LORA_FLAGS, loraOptions } from './lora-flag.ts';
import { loadFlags, loadOptions } from './request-flags.ts';

export const MODEL_FLAGS: Flags = {
  model: {
    value: 'PATH|URL|hf:OWNER/NAME|demo',
    help: 'folder of the model, or its address on the hub (default: demo, the small one that comes along)',
  },
  transformer: {
    value: 'FILE',
    help: 'a model’s files one by one, in place of --model: safetensors or GGUF; may hold the others too',
  },
  vae: { value: 'FILE', help: 'its autoencoder, with --transformer' },
  clip: { value: 'FILE', help: 'its CLIP text encoder, with --transformer' },
  t5: { value: 'FILE', help: 'its T5 text encoder, with --transformer' },
  ...loadFlags(),
  ...LORA_FLAGS,
  programs: { value: 'BUNDLE', help: 'folder or URL of programs compiled ahead of time' },
  'public-key': {
    value: 'FILE|KEY',
    help: 'who signed those programs: an Ed25519 key in PEM or base64; they then run without bounds checks',
  },
  adapter: { value: 'NAME', help: 'part of the GPU’s name, as doctor shows it' },
};

/** A model's place of which only headers will be read: nothing of a hub's is downloaded. */
export const headersOf = async (place: string, signal?: AbortSignal): Promise<ModelSource> =>
  place === 'demo' ? demoModel() : resolveSource(place, { ...(signal && { signal }), headersOnly: true });

/** The model that the flags name. @throws KontextError `invalid-request` for files without a transformer, or beside a folder */
export function modelFrom(values: FlagValues<Flags>): ModelSource {
  const [transformer, vae, clip, t5] = [values.transformer, values.vae, values.clip, values.t5].map(text);
  const model = text(values.model);
  if (transformer === undefined) {
    if (vae !== undefined || clip !== undefined || t5 !== undefined) {
      throw usage(
        '--vae, --clip and --t5 go with --transformer: give all files of the model one by one, or its folder as --model.',
      );
    }
    return model === undefined || model === 'demo' ? demoModel() : model;
  }
  if (model !== undefined) throw usage('Give --model, a folder, or --transformer and the other files; not both.');
  return {
    transformer,
    ...(vae !== undefined && { vae }),
    ...(clip !== undefined && { clip }),
    ...(t5 !== undefined && { t5 }),
  };
}

/** As pictures tell it: the last part of its path or address. */
export function modelName(values: FlagValues<Flags>): string {
  const path = text(values.transformer) ?? text(values.model) ?? 'demo';
  return path.replace(/[\\/]+$/, '').replace(/^.*[\\/]/, '');
}

/** Options of `Kontext.load` that the flags stand for. */
export async function loadFrom(values: FlagValues<Flags>): Promise<LoadOptions> {
  const [adapter, bundle, key] = [text(values.adapter), text(values.programs), text(values['public-key'])];
  if (key !== undefined && bundle === undefined)
    throw usage('--public-key says who signed a bundle: give --programs too.');
  const programs = bundle !== undefined && key !== undefined ? { bundle, publicKey: await readKey(key) } : bundle;
  return {
    ...loadOptions(values),
    ...loraOptions(values as FlagValues<typeof LORA_FLAGS>),
    ...(programs !== undefined && { programs }),
    ...(adapter !== undefined && { device: { adapter } }),
  } as LoadOptions;
}

/** A key on the command line is its file, or the key itself. */
function readKey(key: string): Promise<string> {
  return readFile(key, 'utf8').catch(() => key);
}

const text = (value: string | string[] | boolean | undefined): string | undefined =>
  typeof value === 'string' ? value : undefined;
