// API keys: who may ask, how often, and how many requests at once. Only hashes are kept.
// Keys are random and long, so one round of SHA-256 is enough; a password would need more.
import { createHash, randomBytes } from 'node:crypto';
import { ApiError } from './errors.ts';
import { type Client, DEFAULT_PRIORITY } from './job-request.ts';

/** One key as the key file holds it. */
export interface ApiKey {
  /** Name in logs and for fairness; not secret. */
  id: string;
  /** SHA-256 of the key, hex. */
  sha256: string;
  /** Requests a minute; unlimited when left out. */
  requestsPerMinute?: number;
  /** Requests at the same time; unlimited when left out. */
  concurrency?: number;
  /** Smallest priority number it may ask for, 0 to 9; default 5. */
  priority?: number;
}

/** What {@link makeKey} gives. */
export interface NewKey {
  /** For the client; stored nowhere. */
  key: string;
  /** For the key file. */
  entry: ApiKey;
}

/** A new key and what the key file holds of it. */
export function makeKey(id: string): NewKey {
  const key = `kx-${randomBytes(32).toString('base64url')}`;
  return { key, entry: { id, sha256: sha256(key) } };
}

/** The entries of a key file. @throws ApiError when the list is not one of {@link ApiKey} */
export function checkKeys(value: unknown): ApiKey[] {
  if (!Array.isArray(value)) throw new ApiError(500, 'keys-invalid', 'The key file must hold a JSON array of keys.');
  const ids = new Set<string>();
  for (const key of value as ApiKey[]) {
    const whole = (n: unknown, min: number) => n === undefined || (Number.isInteger(n) && (n as number) >= min);
    const valid =
      typeof key === 'object' &&
      key !== null &&
      /^[\w.@-]{1,100}$/.test(key.id) &&
      /^[0-9a-f]{64}$/.test(key.sha256) &&
      whole(key.requestsPerMinute, 1) &&
      whole(key.concurrency, 1) &&
      whole(key.priority, 0) &&
      !ids.has(key.id);
    if (!valid) {
      const message =
        'Each key needs a unique id (letters, digits, . _ @ -) and sha256 (64 hex digits); requestsPerMinute and concurrency are whole numbers from 1, priority from 0.';
      throw new ApiError(500, 'keys-invalid', message);
    }
    ids.add(key.id);
  }
  return value as ApiKey[];
}

/** What a request was admitted as. */
export interface Admission {
  /** Who it is. */
  client: Client;
  /** To call when the answer has ended. */
  release: () => void;
}

const MINUTE_MS = 60_000;

/** Lets requests in by their keys; without keys everybody is `anonymous`. */
export class Doorkeeper {
  readonly #keys: Map<string, ApiKey> | undefined;
  /** Tokens of each key's bucket, filled evenly. */
  readonly #buckets = new Map<string, { tokens: number; at: number }>();
  readonly #running = new Map<string, number>();

  constructor(
    keys: readonly ApiKey[] | undefined,
    private readonly now: () => number = Date.now,
  ) {
    this.#keys = keys && new Map(keys.map((key) => [key.sha256, key]));
  }

  /** Who asks, without counting it. @throws ApiError 401 */
  identify(authorization: string | null): ApiKey | undefined {
    if (!this.#keys) return undefined;
    const [, given] = /^Bearer (\S{1,200})$/i.exec(authorization ?? '') ?? [];
    const key = given === undefined ? undefined : this.#keys.get(sha256(given));
    if (key) return key;
    const message = given === undefined ? 'Send an API key: Authorization: Bearer KEY.' : 'This API key is not known.';
    throw new ApiError(401, 'invalid_api_key', message);
  }

  /** Counts a request that makes work. @throws ApiError 401, 429 */
  admit(authorization: string | null): Admission {
    const key = this.identify(authorization);
    if (!key) return { client: { id: 'anonymous', priority: 0 }, release: () => {} };
    const running = this.#running.get(key.id) ?? 0;
    if (key.concurrency !== undefined && running >= key.concurrency) {
      const message = `This key may have ${key.concurrency} requests at once. Wait until one has ended.`;
      throw new ApiError(429, 'concurrency-limit', message, { retryAfterSeconds: 1 });
    }
    this.#spend(key);
    this.#running.set(key.id, running + 1);
    let released = false;
    return {
      client: { id: key.id, priority: key.priority ?? DEFAULT_PRIORITY },
      release: () => {
        if (released) return;
        released = true;
        this.#running.set(key.id, this.#running.get(key.id)! - 1);
      },
    };
  }

  #spend({ id, requestsPerMinute }: ApiKey): void {
    if (requestsPerMinute === undefined) return;
    const now = this.now();
    const bucket = this.#buckets.get(id) ?? { tokens: requestsPerMinute, at: now };
    const tokens = Math.min(requestsPerMinute, bucket.tokens + ((now - bucket.at) / MINUTE_MS) * requestsPerMinute);
    this.#buckets.set(id, { tokens: tokens - (tokens >= 1 ? 1 : 0), at: now });
    if (tokens >= 1) return;
    const seconds = Math.ceil(((1 - tokens) / requestsPerMinute) * 60);
    throw new ApiError(429, 'rate-limit', `This key may send ${requestsPerMinute} requests a minute.`, {
      retryAfterSeconds: Math.max(1, seconds),
    });
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
