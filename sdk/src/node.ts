// The package's entry in Node: the engine with pictures from files and models from folders.
// Pages have an entry of their own, because what opens a picture there is the browser.
import { decodeImage } from './image/node.ts';
import { Engine, type KontextPlan, type LoadOptions, type PlanOptions } from './kontext/kontext.ts';
import type { ModelSource } from './model/open.ts';

/** A loaded FLUX.1 Kontext model. `await using kontext = await Kontext.load(folder)` frees the GPU at the end of the block. */
export type Kontext = Engine;

/** Loads FLUX.1 Kontext models in this process. */
export const Kontext = {
  /**
   * Opens a model and a GPU; weights are read by the requests that need them.
   *
   * @param source folder (path, URL or `hf:owner/name`) in diffusers' or BFL's layout, single files, or an own {@link ModelFiles}
   * @throws KontextError `webgpu-unavailable`, `weights-invalid`, `tokenizer-invalid`, `download-failed`, `feature-missing`,
   *   `invalid-request`
   */
  load: (source: ModelSource, options?: LoadOptions): Promise<Kontext> => Engine.open({ decodeImage }, source, options),
  /**
   * What a model will need for a request, before anything of it is loaded: download, GPU memory by stage, work, for every choice of
   * memory and quantisation. Reads headers only.
   *
   * @throws KontextError as `load`; `out-of-memory` when nothing fits an amount of `memory`
   */
  plan: (source: ModelSource, options?: PlanOptions): Promise<KontextPlan> => Engine.plan(source, options),
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
export type { HostOptions } from './host/module.ts';
export type { HubOptions } from './hub/repository.ts';
export type { DownloadProgress } from './hub/transfer.ts';
export { readPngText } from './image/metadata/png-text.ts';
export type { MadeWith, PictureSettings, Unused } from './image/metadata/types.ts';
export {
  decodeImage,
  type EncodeOptions,
  encodeImage,
  type ImageFormat,
  readSettings,
  saveImage,
} from './image/node.ts';
export type { PixelDepth, PixelImage } from './image/pixels.ts';
export type { Setting } from './kontext/budget.ts';
export type { Engine, KontextPlan, LoadOptions, PlanOptions } from './kontext/kontext.ts';
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
export { demoAdapter, demoModel, demoPicture } from './model/demo.ts';
export { type FileInput, folderFiles, type ModelFiles, urlFiles } from './model/files.ts';
export type { BflFiles, ModelSource, PartName } from './model/open.ts';
export type { BundleSource } from './programs/bundle.ts';
export type { PublicKey } from './programs/signature.ts';
export type { Programs, SignedPrograms } from './programs/sources.ts';
export type { TunedAdapter, TunedGain, TuningProfile } from './tune/profile.ts';
