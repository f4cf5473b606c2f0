// The package's entry in pages and workers: the engine with pictures from whatever a browser can show.
// It runs in the thread that imports it; `worker/client.ts` offers the same behind a worker.
import { cachedFiles } from './cache/model-cache.ts';
import { isHubAddress } from './hub/address.ts';
import { decodeImage } from './image/browser.ts';
import { Engine, type LoadOptions as EngineOptions, type KontextPlan, type PlanOptions } from './kontext/kontext.ts';
import { modelAndFileAt } from './model/given-file.ts';
import type { ModelSource } from './model/open.ts';
import { pageUrl } from './worker/page-url.ts';

/** A loaded FLUX.1 Kontext model in this thread. */
export type Kontext = Engine;

/** Options of `Kontext.load`; defaults are in `LOAD_OPTIONS`. */
export interface LoadOptions extends EngineOptions {
  /** Keep the files of a URL in this browser, so that the next visit starts without a download. Default true. */
  cache?: boolean;
}

/** Loads FLUX.1 Kontext models in this thread. */
export const Kontext = {
  /**
   * Opens a model and a GPU; weights are read by the requests that need them.
   *
   * @param source URL of a folder or `hf:owner/name`, in diffusers' or BFL's layout, single files (URLs, Files, bytes), or an own {@link ModelFiles}
   * @throws KontextError `webgpu-unavailable`, `weights-invalid`, `tokenizer-invalid`, `download-failed`, `feature-missing`,
   *   `invalid-request`
   */
  load(source: ModelSource, { cache = true, ...options }: LoadOptions = {}): Promise<Kontext> {
    if (typeof options.programs === 'string') options.programs = pageUrl(options.programs);
    if (typeof options.profile === 'string') options.profile = pageUrl(options.profile);
    if (typeof source !== 'string' && !(source instanceof URL)) return Engine.open({ decodeImage }, source, options);
    if (isHubAddress(source)) return Engine.open({ decodeImage }, source, options);
    const url = pageUrl(source);
    if (!cache) return Engine.open({ decodeImage }, url, options);
    const { base, file } = modelAndFileAt(url);
    const files = cachedFiles(base, { request: { access: options.access } });
    return Engine.open({ decodeImage }, file === undefined ? files : { ...files, file }, options);
  },
  /**
   * What a model will need for a request, before anything of it is loaded: download, GPU memory by stage, work, for every choice of
   * memory and quantisation. Reads headers only.
   *
   * @throws KontextError as `load`; `out-of-memory` when nothing fits an amount of `memory`
   */
  plan: (source: ModelSource, options?: PlanOptions): Promise<KontextPlan> =>
    Engine.plan(typeof source === 'string' && !isHubAddress(source) ? pageUrl(source) : source, options),
};

export type { TunedFamily, TunedSchedules } from '../../kernels-codegen/src/tune/tuned.ts';
export { KontextError, type KontextErrorCode, type KontextErrorJSON } from '../../runtime/src/errors.ts';
export type { Backend } from '../../runtime/src/gpu/device.ts';
export type { GpuEntryPoint, OpenDeviceOptions } from '../../runtime/src/gpu/open.ts';
export type { AdapterReport } from '../../runtime/src/gpu/report.ts';
export type { AccessPolicy } from '../../runtime/src/net/access.ts';
export type { NetOptions } from '../../runtime/src/net/request.ts';
export type { SubgroupMatrixConfig } from '../../runtime/src/program/types.ts';
export type { ByteSource } from '../../runtime/src/weights/bytes.ts';
export type { UrlBytesOptions } from '../../runtime/src/weights/url.ts';
export { type CacheOptions, cachedFiles, clearCache } from './cache/model-cache.ts';
export type { PieceStore } from './cache/store.ts';
export type { HostOptions } from './host/module.ts';
export type { HubOptions } from './hub/repository.ts';
export type { DownloadProgress } from './hub/transfer.ts';
export {
  type BlobOptions,
  decodeImage,
  type ImageFormat,
  toBlob,
  toCanvas,
  toImageBitmap,
  toImageData,
} from './image/browser.ts';
export type { PixelDepth, PixelImage } from './image/pixels.ts';
export type { Setting } from './kontext/budget.ts';
export type { Engine, KontextPlan, LoadOptions as EngineOptions, PlanOptions } from './kontext/kontext.ts';
export {
  type ChoiceOption,
  type Conditioning,
  LOAD_OPTIONS,
  type MaskMode,
  type MemoryBudget,
  type MemoryMode,
  type ModelDefaults,
  type NumberOption,
  type OptionFacts,
  type Precision,
  type Quantization,
  REQUEST_OPTIONS,
  type ReferencePositions,
  type RequestOption,
  type SamplerName,
  type ScheduleName,
  type StitchDirection,
  type SwitchOption,
  type Tune,
  type ValueOption,
} from './kontext/options.ts';
export type { ModelPlan, PlannedRegion, PlannedRequest, SettingPlan } from './kontext/plan.ts';
export type { ProgramProvider, ProgramRequest } from './kontext/programs.ts';
export type * from './kontext/types.ts';
export { type FileInput, type ModelFiles, urlFiles } from './model/files.ts';
export type { BflFiles, ModelSource, PartName } from './model/open.ts';
export type { BundleSource } from './programs/bundle.ts';
export type { PublicKey } from './programs/signature.ts';
export type { Programs, SignedPrograms } from './programs/sources.ts';
export type { TunedAdapter, TunedGain, TuningProfile } from './tune/profile.ts';
