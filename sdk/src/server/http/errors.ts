// What a client is told when something fails: OpenAI's shape, with our codes and sentences inside.
// One table maps the SDK's error codes to HTTP; nothing else in the server knows both.
import { KontextError, type KontextErrorCode } from '../../../../runtime/src/errors.ts';

import type { JobError } from '../jobs/types.ts';

/** OpenAI's body of an answer that is not a success. */
export interface ApiErrorBody {
  /** What went wrong. */
  error: {
    /** What happened and what to do about it. */
    message: string;
    /** OpenAI's kind of error. */
    type: string;
    /** The request's field that is wrong. */
    param: string | null;
    /** Stable identifier. */
    code: string;
  };
}

/** An answer that is not a success. */
export class ApiError extends Error {
  /** Always `ApiError`. */
  override readonly name = 'ApiError';

  /**
   * Made by the server and its queues; public so that stores and queues of one's own can throw it.
   *
   * @param status HTTP status
   * @param code stable identifier, in OpenAI's `error.code`
   * @param message what happened and what to do about it
   */
  constructor(
    /** HTTP status. */
    readonly status: number,
    /** Stable identifier. */
    readonly code: string,
    message: string,
    /** What else the answer says. */
    readonly extra: {
      /** The request's field that is wrong. */
      param?: string;
      /** Whole seconds until it is worth trying again. */
      retryAfterSeconds?: number;
    } = {},
  ) {
    super(message);
  }

  /** The body of the answer, as OpenAI's clients expect it. */
  toJSON(): ApiErrorBody {
    const type = TYPES[this.status] ?? (this.status >= 500 ? 'server_error' : 'invalid_request_error');
    return { error: { message: this.message, type, param: this.extra.param ?? null, code: this.code } };
  }

  /** Headers beside content type. */
  headers(): Record<string, string> {
    const { retryAfterSeconds } = this.extra;
    return retryAfterSeconds === undefined ? {} : { 'retry-after': String(retryAfterSeconds) };
  }
}

/** The answer for any error; what nobody foresaw becomes a 500 that tells nothing of the inside. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof KontextError) return fromJson(error.toJSON());
  return new ApiError(500, 'internal', 'The server failed. The request id in x-request-id finds it in the log.');
}

/** The answer for a job's stored error. */
export function fromJson({ code, message, details }: JobError): ApiError {
  const param = typeof details?.option === 'string' ? details.option : undefined;
  return new ApiError(STATUS[code] ?? 500, code, message, param === undefined ? {} : { param });
}

/** Whether a job's failure lies with the machine and another run may succeed. */
export function isTransient(code: KontextErrorCode): boolean {
  return code === 'device-lost';
}

const STATUS: Record<string, number> = {
  'no-space': 507,
  'invalid-request': 400,
  'image-invalid': 400,
  'limit-too-small': 400,
  'out-of-memory': 503,
  'device-lost': 503,
  'webgpu-unavailable': 503,
  closed: 503,
  aborted: 499,
};

const TYPES: Record<number, string> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  429: 'rate_limit_error',
};
