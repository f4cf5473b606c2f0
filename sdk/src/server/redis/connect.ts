// Opening Redis, and what is said when it is not there.
import type { Redis } from 'ioredis';
import { ApiError } from '../http/errors.ts';
import type { Logger } from '../http/logger.ts';
import { type ScriptedRedis, withScripts } from './scripts.ts';

/** Reconnecting begins at once and is tried at least this often. */
const MAX_RECONNECT_MS = 2_000;
/** A worker that starts together with Redis waits this long for it. */
const FIRST_CONNECTION_MS = 30_000;
const RETRY_MS = 500;
/** A server's command waits this long for a Redis that is restarting; then its client is told to come again. */
const COMMAND_TIMEOUT_MS = 10_000;

/**
 * @param patient a worker waits for Redis as long as it takes; a server answers 503 after ten seconds
 * @throws ApiError 503 when there is nothing at `url`, 500 when ioredis is not installed
 */
export async function connectRedis(
  url: string,
  { patient, log }: { patient: boolean; log: Logger },
): Promise<ScriptedRedis> {
  const { Redis: Client } = await import('ioredis').catch((cause: unknown) => {
    throw new ApiError(
      500,
      'missing-package',
      `--redis needs two packages: npm install bullmq ioredis (${firstLine(cause)})`,
    );
  });
  const redis: Redis = new Client(url, {
    maxRetriesPerRequest: null,
    lazyConnect: true,
    retryStrategy: (times) => Math.min(MAX_RECONNECT_MS, 50 * 2 ** Math.min(times, 6)),
    ...(!patient && { commandTimeout: COMMAND_TIMEOUT_MS }),
  });
  let complained = false;
  redis.on('error', (error: Error) => {
    if (!complained) log.warn({ error: firstLine(error) }, 'Redis does not answer');
    complained = true;
  });
  redis.on('ready', () => {
    if (complained) log.info({}, 'Redis answers again');
    complained = false;
  });
  const until = Date.now() + (patient ? FIRST_CONNECTION_MS : 0);
  for (;;) {
    try {
      await redis.connect();
      return withScripts(redis);
    } catch (cause) {
      redis.disconnect();
      if (Date.now() >= until) {
        throw new ApiError(503, 'queue-unavailable', `No Redis answers at ${hostOf(url)}: ${firstLine(cause)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** A failure of Redis as the client sees it. */
export function unavailable(cause: unknown): ApiError {
  if (cause instanceof ApiError) return cause;
  const full = /^OOM\b/.test(firstLine(cause));
  return full
    ? new ApiError(507, 'no-space', 'The queue has no room. Try again later.', { retryAfterSeconds: 30 })
    : new ApiError(503, 'queue-unavailable', 'The queue does not answer. Try again.', { retryAfterSeconds: 2 });
}

/** Without user and password. */
function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : 'the address given';
}

function firstLine(error: unknown): string {
  return String((error as Error).message ?? error).split('\n')[0]!;
}
