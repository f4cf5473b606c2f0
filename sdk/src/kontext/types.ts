// The public vocabulary of the SDK: requests, results, events, and the one interface every engine implements.
// In-process engine, worker client and test doubles share it, so an app can swap them without a change.
import type { ProgressEvent } from './progress-types.ts';
import type { EditRequest, GenerateRequest, ImageInput, ImageSize, LatentsOnly } from './request-types.ts';
import type { EditResult, LatentsResult, StreamEvent } from './result-types.ts';
import type { Session } from './session-types.ts';

export type * from './progress-types.ts';
export type * from './request-types.ts';
export type * from './result-types.ts';
export type * from './session-types.ts';

/** Shapes to make ready ahead of the first request, so that it starts at once. */
export interface PrepareRequest extends Partial<ImageSize> {
  /** Sizes of the references that will come; empty for text-to-image. Default: one of the same size. */
  references?: ImageSize[];
  /** Steps of the requests to come; matters with memory `resident` only. */
  steps?: number;
  /** T5 tokens of the requests to come. */
  maxSequenceLength?: number;
  /** Cancels: rejects with `aborted`. */
  signal?: AbortSignal;
  /** Called with `queued`, `compile`, `load` and `done` events. */
  onProgress?: (event: ProgressEvent) => void;
}

/** A loaded model. Requests made at the same time run one after the other. */
export interface KontextEngine extends AsyncDisposable {
  /** As the other form, but stops before the decoder: the result has latents and no picture. */
  edit(request: EditRequest & LatentsOnly): Promise<LatentsResult>;
  /**
   * Changes a picture as the prompt says (FLUX.1 Kontext, https://arxiv.org/abs/2506.15742).
   *
   * @throws KontextError `invalid-request` and `image-invalid` before any work; `download-failed`, `weights-invalid`,
   *   `out-of-memory`, `limit-too-small`, `device-lost`, `gpu-validation`, `program-mismatch` during it; `aborted`, `closed`
   */
  edit(request: EditRequest): Promise<EditResult>;
  /** As the other form, but stops before the decoder: the result has latents and no picture. */
  generate(request: GenerateRequest & LatentsOnly): Promise<LatentsResult>;
  /** Makes a picture from the prompt alone. @throws KontextError as {@link KontextEngine.edit} */
  generate(request: GenerateRequest): Promise<EditResult>;
  /**
   * The same, as a sequence of events; breaking out of the loop cancels. Edits when the request has an `image`.
   *
   * @throws KontextError as {@link KontextEngine.edit}, out of the loop
   */
  stream(request: EditRequest | GenerateRequest): AsyncIterable<StreamEvent>;
  /** A chain of edits, each on the result of the one before, with undo. */
  session(image: ImageInput): Session;
  /**
   * Compiles programs and, with memory `resident`, loads weights for a size before it is asked for.
   *
   * @throws KontextError as {@link KontextEngine.edit}
   */
  prepare(request?: PrepareRequest): Promise<void>;
  /** Cancels what runs and what waits, then frees the GPU. Later calls reject with `closed`. */
  close(): Promise<void>;
  /** The same as {@link KontextEngine.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}
