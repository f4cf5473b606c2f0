// The messages between a page and the worker that holds the engine.
// Plain data only; what can be moved is moved, and errors keep their codes.
import type { KontextErrorJSON } from '../../../runtime/src/errors.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import type { LoadOptions } from '../browser.ts';
import type { DownloadProgress } from '../hub/transfer.ts';
import type { PixelImage } from '../image/pixels.ts';
import type { EditRequest, GenerateRequest, LatentsResult, PrepareRequest, ProgressEvent } from '../kontext/types.ts';
import type { BflFiles } from '../model/open.ts';
import type { SignedPrograms } from '../programs/sources.ts';

/** Options that can cross to a worker: a bundle by its URL, because an imported one has a function. */
export type PortableOptions = Omit<LoadOptions, 'signal' | 'programs' | 'onDownload'> & {
  /** URL of a bundle's folder, alone or with the key that signed it. */
  programs?: string | URL | PortableSignedPrograms;
};

/** A signed bundle by its URL. */
export interface PortableSignedPrograms extends Omit<SignedPrograms, 'bundle'> {
  /** URL of the bundle's folder. */
  bundle: string | URL;
}

/** Sources that can cross: URLs, Files and bytes; an own `ModelFiles` has functions, which cannot. */
export type PortableSource = string | BflFiles;

/** What a request is without its callbacks. */
export type Portable<T> = Omit<T, 'signal' | 'onProgress' | 'choose'>;

export type Call =
  /** `chooses`: the page has a `choose` of its own, which is asked by message. */
  | { method: 'edit'; request: Portable<EditRequest>; chooses: boolean }
  | { method: 'generate'; request: Portable<GenerateRequest>; chooses: boolean }
  | { method: 'prepare'; request: Portable<PrepareRequest> };

/** `id` is the client's number for one call; answers carry it. */
export type ToWorker =
  /** `tells`: the page wants to know how a download gets on. */
  | { type: 'open'; id: number; source: PortableSource; options: PortableOptions; tells: boolean }
  | ({ type: 'call'; id: number } & Call)
  | { type: 'abort'; id: number }
  | { type: 'chosen'; id: number; answer: number | readonly number[] }
  | { type: 'not-chosen'; id: number; error: KontextErrorJSON | { message: string } }
  | { type: 'close'; id: number };

export type FromWorker =
  | { type: 'event'; id: number; event: ProgressEvent | DownloadProgress }
  | { type: 'choose'; id: number; previews: PixelImage[] }
  | { type: 'done'; id: number; value?: AdapterReport | LatentsResult }
  | { type: 'failed'; id: number; error: KontextErrorJSON | { message: string; stack?: string } };
