// Pictures on Redis itself: nothing else to share between machines. For many or large pictures a folder is cheaper.
import type { BlobStore } from '../jobs/types.ts';
import { unavailable } from './connect.ts';
import { keys, type ScriptedRedis } from './scripts.ts';

/** {@link BlobStore} on Redis. */
export class RedisStore implements BlobStore {
  /** @param redis stays its owner's @param keepMs after which a blob is gone */
  constructor(
    private readonly redis: ScriptedRedis,
    private readonly keepMs = 3_600_000,
  ) {}

  async put(key: string, bytes: Uint8Array): Promise<void> {
    const set = keys.blobs(key.split('/')[0]!);
    try {
      const answers = await this.redis
        .multi()
        .set(keys.blob(key), Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), 'PX', this.keepMs)
        .sadd(set, key)
        .pexpire(set, this.keepMs)
        .exec();
      for (const [error] of answers ?? []) if (error) throw error;
    } catch (cause) {
      throw unavailable(cause);
    }
  }

  async get(key: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    try {
      const bytes = await this.redis.getBuffer(keys.blob(key));
      return bytes === null ? undefined : new Uint8Array(bytes);
    } catch (cause) {
      throw unavailable(cause);
    }
  }

  async remove(prefix: string): Promise<void> {
    const set = keys.blobs(prefix.replace(/\/$/, ''));
    const names = await this.redis.smembers(set).catch(() => []);
    await this.redis.unlink(set, ...names.map((name) => keys.blob(name))).catch(() => {});
  }

  async close(): Promise<void> {}
}
