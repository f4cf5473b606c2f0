// The one error type of the SDK: a stable code to branch on, a message that says what to do.
// It survives structured clone across a worker boundary through toJSON / fromJSON.

/** Stable identifiers; messages may change between versions, these may not. */
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
  | 'closed';

/** Plain form of a {@link KontextError}, safe to post between threads or to log as JSON. */
export interface KontextErrorJSON {
  code: KontextErrorCode;
  message: string;
  details?: Record<string, unknown>;
}

/** Thrown by every public function of this project for every foreseeable failure. */
export class KontextError extends Error {
  override readonly name = 'KontextError';

  /**
   * @param code stable identifier
   * @param message what happened and what to do about it
   * @param details plain data a program can act on (needed bytes, missing feature, tensor name, …)
   */
  constructor(
    readonly code: KontextErrorCode,
    message: string,
    readonly details: Record<string, unknown> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  toJSON(): KontextErrorJSON {
    return { code: this.code, message: this.message, details: this.details };
  }

  static fromJSON(json: KontextErrorJSON): KontextError {
    return new KontextError(json.code, json.message, json.details);
  }
}

/** Throws `aborted` when the signal has fired; call between units of work. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortedError(signal);
}

/** The error every cancelled operation rejects with; `cause` is the caller's reason. */
export function abortedError(signal?: AbortSignal): KontextError {
  return new KontextError('aborted', 'The operation was cancelled.', {}, { cause: signal?.reason });
}
