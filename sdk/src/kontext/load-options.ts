// What `Kontext.load` and `Kontext.plan` take, and its checks: everything that can be refused before a file or a device is opened.
import { KontextError, shown } from '../../../runtime/src/errors.ts';
import type { OpenDeviceOptions } from '../../../runtime/src/gpu/open.ts';
import type { AccessPolicy } from '../../../runtime/src/net/access.ts';
import type { HostOptions } from '../host/module.ts';
import type { HubOptions } from '../hub/repository.ts';
import type { DownloadProgress } from '../hub/transfer.ts';
import type { FileInput } from '../model/files.ts';
import { checkQuantisable } from '../model/formats.ts';
import type { Model } from '../model/open.ts';
import type { Programs } from '../programs/sources.ts';
import type { TuningProfile } from '../tune/profile.ts';
import { budgetBytes } from './budget.ts';
import { namesOf } from './known-options.ts';
import {
  type ChoiceOption,
  type Conditioning,
  LOAD_OPTIONS,
  type MemoryBudget,
  type MemoryMode,
  type Precision,
  type Quantization,
  type Tune,
} from './options.ts';
import type { ModelPlan, SettingPlan } from './plan.ts';
import type { AdapterOptions, ImageSize, RequestOptions } from './types.ts';

/** Options of `Kontext.load`; defaults are in `LOAD_OPTIONS`. */
export interface LoadOptions {
  /** Arithmetic of the matmuls; default `auto`: f16 where the adapter has it. */
  precision?: Precision;
  /**
   * Rounding of timesteps and guidance. `diffusers` and `bfl` are what the two published pipelines do in bfloat16; they agree on the
   * guidance and differ in 7 of 28 timesteps at 1024². Default `auto`: `exact` in float32, else `diffusers`, since sizes, schedule
   * and seeds follow that pipeline too.
   */
  conditioning?: Conditioning;
  /**
   * Storage of the large matrices on the GPU; default `auto`: as the file has them, without loss, where floats take the arithmetic's
   * precision. `none` takes that for all; `q8` and `q4` save memory, not time.
   */
  quantization?: Quantization;
  /**
   * Default `phased`: text encoders or transformer, never both. `resident` keeps every part loaded between edits; `streamed` loads the
   * transformer piece by piece in every step, slow but small.
   */
  memory?: MemoryMode | MemoryBudget;
  /** Which GPU, and how to open it. */
  device?: OpenDeviceOptions;
  /** Where the WASM module comes from, for pages with a strict content policy. */
  host?: HostOptions;
  /**
   * A bundle made by `kontext compile`: imported, or its folder or URL. Programs are compiled in this process when left out. A bundle runs
   * with the driver's bounds checks, unless it comes with the `publicKey` that signed it.
   */
  programs?: Programs;
  /**
   * What `kontext tune` measured on this adapter: the file's path or URL, or its parsed content. Programs compiled in this process then
   * get the schedules that were fastest. Bundles have theirs by `kontext compile --profile`.
   */
  profile?: string | URL | TuningProfile;
  /**
   * `background` measures schedules for the shapes in use while the engine is idle, on a device of its own, and keeps what was fastest by
   * adapter and driver: it is used from the next load on. A request that comes meanwhile waits for one measurement at most. Default `off`.
   */
  tune?: Tune;
  /**
   * A small decoder for sharp previews: a safetensors file of TAESD's kind for FLUX's latents (taef1). Without one, previews come from
   * a linear map fitted for the model's autoencoder, at 1/8 of the size.
   */
  previewDecoder?: FileInput;
  /** Adapters (LoRA and its relatives) of every request that does not name its own; each needs a `source`. */
  adapters?: readonly AdapterOptions[];
  /**
   * Adds `adapters` to the weights while they load, for good: no cost in any step, but no other strength either, and quantised weights
   * are quantised again with them. Default false.
   */
  merge?: boolean;
  /** For models on the Hugging Face hub (`hf:owner/name`): token, mirror, folder for downloads. */
  hub?: HubOptions;
  /**
   * Which hosts may be asked for the model and for pictures of requests, redirects included. Servers that fetch pictures which
   * their users name set `{ privateAddresses: 'refuse' }`. Default: all.
   */
  access?: AccessPolicy;
  /** Told of downloads from the hub, over all files: bytes, rate, time left. */
  onDownload?: (event: DownloadProgress) => void;
  /** Cancels loading: it rejects with `aborted`. */
  signal?: AbortSignal;
}

/** What to plan for: options of the load to come, and the request; defaults are the model's. */
export interface PlanOptions
  extends Pick<
    LoadOptions,
    | 'precision'
    | 'quantization'
    | 'memory'
    | 'device'
    | 'host'
    | 'programs'
    | 'adapters'
    | 'merge'
    | 'hub'
    | 'access'
    | 'onDownload'
    | 'signal'
  > {
  /** Of the picture. */
  size?: ImageSize;
  /** Of the references; default one of the picture's size. */
  references?: readonly ImageSize[];
  /** Denoising steps. */
  steps?: number;
  /** T5 tokens. */
  maxSequenceLength?: number;
  /** As of the request, with an empty negative prompt. */
  nagScale?: number;
  /** As of the request. */
  nagSigmaEnd?: number;
  /** As of the request; of kind `region` alone, since what the others spare shows when they run. */
  cache?: RequestOptions['cache'];
  /** With a region cache: the share of the picture that may change, above 0 and at most 1, with what the cache's `margin` adds. */
  maskShare?: number;
}

/** What a model will need, and with a budget the choice that fits it best. */
export interface KontextPlan extends ModelPlan {
  /** With an amount of `memory`: what `Kontext.load` would take. */
  chosen?: SettingPlan;
}

export const LOAD_KEYS = namesOf<LoadOptions>({
  precision: true,
  conditioning: true,
  quantization: true,
  memory: true,
  device: true,
  host: true,
  programs: true,
  profile: true,
  tune: true,
  previewDecoder: true,
  adapters: true,
  merge: true,
  hub: true,
  access: true,
  onDownload: true,
  signal: true,
});
export const PLAN_KEYS = namesOf<PlanOptions>({
  precision: true,
  quantization: true,
  memory: true,
  device: true,
  host: true,
  programs: true,
  adapters: true,
  merge: true,
  hub: true,
  access: true,
  onDownload: true,
  signal: true,
  size: true,
  references: true,
  steps: true,
  maxSequenceLength: true,
  nagScale: true,
  nagSigmaEnd: true,
  cache: true,
  maskShare: true,
});
export const DEVICE_KEYS = namesOf<OpenDeviceOptions>({
  adapter: true,
  powerPreference: true,
  backend: true,
  unchecked: true,
  dawnToggles: true,
  hangMs: true,
  gpu: true,
});
export const HOST_KEYS = namesOf<HostOptions>({ wasm: true, wasmUrl: true });

export type Choices = {
  [K in Exclude<keyof typeof LOAD_OPTIONS, 'memory'>]: (typeof LOAD_OPTIONS)[K]['choices'][number];
} & {
  memory: MemoryMode | MemoryBudget;
};

/** @throws KontextError `invalid-request` for a value that is not in its list */
export function checkChoices(options: Pick<LoadOptions, keyof typeof LOAD_OPTIONS>): Choices {
  const chosen = Object.entries(LOAD_OPTIONS).map(([name, option]: [string, ChoiceOption]) => {
    const value = options[name as keyof Choices] ?? option.default;
    if (option.choices.includes(value as string)) return [name, value];
    if (option.amounts && budgetBytes(value) !== undefined) return [name, value];
    const known = option.choices.map((choice) => `"${choice}"`).join(', ');
    throw new KontextError(
      'invalid-request',
      `${name} is ${shown(value)}; it must be one of ${known}${option.amounts ? ", or an amount like '8GB'" : ''}.`,
    );
  });
  return Object.fromEntries(chosen) as Choices;
}

/** A packed model is in the formats it was packed in. @throws KontextError `invalid-request` when another is asked for */
export function checkPacked(model: Model, { quantization = 'auto' }: Pick<LoadOptions, 'quantization'>): void {
  const { stored, weights } = model.parts.transformer;
  if (!stored) checkQuantisable(weights, quantization);
  if (!stored || quantization === 'auto') return;
  throw new KontextError(
    'invalid-request',
    `${model.label} is packed: its formats were chosen by kontext pack. Leave out quantization "${quantization}", or pack the model again with it.`,
  );
}
