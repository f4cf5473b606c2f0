// The one error type of the SDK: a stable code to branch on, a message that says what to do.
// It survives structured clone across a worker boundary through toJSON / fromJSON.

/**
 * Stable identifiers; messages may change between versions, these may not.
 *
 * - `webgpu-unavailable`: no WebGPU, no adapter or no device; the message says what to install;
 * - `feature-missing`, `limit-too-small`: the device cannot run the program asked for;
 * - `out-of-memory`: of the GPU or of the WASM module; smaller sizes, stronger quantization or another memory mode help;
 * - `device-lost`: the GPU went away; the next request opens it again;
 * - `gpu-validation`: a program and the driver disagree, which is a defect to report;
 * - `download-failed`: a URL did not answer with what was asked of it;
 * - `weights-invalid`, `tokenizer-invalid`, `image-invalid`, `program-invalid`: a file is damaged or of another kind;
 * - `program-mismatch`: there is no prebuilt program for this model, shape or device;
 * - `invalid-request`: an argument is out of range;
 * - `aborted`: the caller's `AbortSignal` fired; `cause` is its reason;
 * - `closed`: the object was closed or disposed;
 * - `internal`: none of these was foreseen, which is a defect to report; `cause` is what was thrown.
 */
export type KontextErrorCode =
  | 'webgpu-unavailable'
  | 'feature-missing'
  | 'limit-too-small'
  | 'out-of-memory'
  | 'device-lost'
  | 'gpu-validation'
  | 'download-failed'
  | 'weights-invalid'
  | 'tokenizer-invalid'
  | 'image-invalid'
  | 'program-mismatch'
  | 'program-invalid'
  | 'invalid-request'
  | 'aborted'
  | 'closed'
  | 'internal';

/** Plain form of a {@link KontextError}, safe to post between threads or to log as JSON. */
export interface KontextErrorJSON {
  /** Stable identifier. */
  code: KontextErrorCode;
  /** What happened and what to do about it. */
  message: string;
  /** Plain data a program can act on. */
  details?: Record<string, unknown>;
}

/** Thrown by every public function of this project for every foreseeable failure. */
export class KontextError extends Error {
  /** Always `KontextError`. */
  override readonly name = 'KontextError';

  /**
   * Made by this project; public so that test doubles can throw it.
   *
   * @param code stable identifier
   * @param message what happened and what to do about it
   * @param details plain data a program can act on (needed bytes, missing feature, tensor name, …)
   * @param options its `cause`, where another error lies behind this one
   */
  constructor(
    /** What to branch on. */
    readonly code: KontextErrorCode,
    message: string,
    /** Plain data a program can act on: needed bytes, missing feature, tensor name, … */
    readonly details: Record<string, unknown> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** The plain form, without stack and cause. */
  toJSON(): KontextErrorJSON {
    return { code: this.code, message: this.message, details: this.details };
  }

  /** The opposite of {@link KontextError.toJSON}. */
  static fromJSON(json: KontextErrorJSON): KontextError {
    return new KontextError(json.code, json.message, json.details);
  }
}

/**
 * Whatever was thrown as the one kind of error: itself when it is one, `aborted` for an `AbortError`, else `code` with the first line of
 * its message.
 *
 * @param what the sentence before that line, without a full stop
 */
export function asKontextError(error: unknown, code: KontextErrorCode = 'internal', what?: string): KontextError {
  if (error instanceof KontextError) return error;
  const { name, message } = (error ?? {}) as Partial<Error>;
  if (name === 'AbortError') return new KontextError('aborted', 'The operation was cancelled.', {}, { cause: error });
  const line = String(message ?? error)
    .split('\n')[0]!
    .replace(/\.$/, '');
  const text = what ?? 'Something went wrong that was not foreseen; please report it';
  return new KontextError(code, `${text}: ${line}.`, {}, { cause: error });
}

/** A value from outside in few words, for a message: its contents are not ours to repeat, and not all have a text. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'an object';
  return typeof value === 'function' ? 'a function' : String(value);
}

/** Throws `aborted` when the signal has fired; call between units of work. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortedError(signal);
}

/** The error every cancelled operation rejects with; `cause` is the caller's reason. */
export function abortedError(signal?: AbortSignal): KontextError {
  return new KontextError('aborted', 'The operation was cancelled.', {}, { cause: signal?.reason });
}
