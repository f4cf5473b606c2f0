// What must happen at once on Redis, as Lua, and the names of all keys.
// One hash tag keeps every key in one slot, so that a cluster works too.
import type { Redis } from 'ioredis';

/** Prefix of every key and of BullMQ's queues. */
export const PREFIX = '{kontext}';

/** Keys by what they hold. */
export const keys = {
  /** Hash: spec, runs, progress, cancel, outcome, seq. */
  job: (id: string) => `${PREFIX}:job:${id}`,
  /** Stream of events; entry n has the id n-0. */
  events: (id: string) => `${PREFIX}:events:${id}`,
  /** Hash: open jobs by client. */
  clients: `${PREFIX}:clients`,
  /** Hash: `jobs` and `work` that are open, over all clients. */
  open: `${PREFIX}:open`,
  /** List of wake-up tokens for idle workers of a model. */
  wake: (model: string) => `${PREFIX}:wake:${model}`,
  /** Set of workers' names. */
  workers: `${PREFIX}:workers`,
  /** What a worker says of itself; gone soon after it stops saying so. */
  worker: (name: string) => `${PREFIX}:worker:${name}`,
  /** Idempotency: client and key to id and digest. */
  idempotency: (client: string, key: string) => `${PREFIX}:idempotency:${JSON.stringify([client, key])}`,
  /** A job's own keys with those that count it while it is open, in the order of the scripts. */
  opened: (id: string) => [keys.job(id), keys.events(id), keys.clients, keys.open] as const,
  blob: (key: string) => `${PREFIX}:blob:${key}`,
  /** Set of a job's blobs. */
  blobs: (id: string) => `${PREFIX}:blobs:${id}`,
} as const;

/** Channel on which the id of a job with a new event is told. */
export const BELL = `${PREFIX}:bell`;
/** Channel on which the id of a job to stop is told. */
export const CANCEL = `${PREFIX}:cancel`;
/** Events kept for those who come late; progress is the only kind there can be many of. */
const MAX_EVENTS = 512;
/** Wake-up tokens kept at most: more than there are workers would only make empty rounds. */
const MAX_TOKENS = 4096;

/** A connection with the scripts as methods. */
export interface ScriptedRedis extends Redis {
  /**
   * Stores a job and its first event. Sent again, as after a lost connection it may be, it changes nothing and answers the same.
   * @returns open jobs of the client with this one, 0 when the job has ended already, −1 when the queue is full
   */
  kontextAccept(
    job: string,
    events: string,
    clients: string,
    open: string,
    id: string,
    spec: string,
    client: string,
    work: number,
    maxOpen: number,
  ): Promise<number>;
  /** Nothing after the outcome. */
  kontextEmit(job: string, events: string, id: string, event: string, progress: string): Promise<number>;
  /** @returns 1 for the one outcome that counts, 0 for any later one */
  kontextEnd(
    job: string,
    events: string,
    clients: string,
    open: string,
    id: string,
    outcome: string,
    status: string,
    client: string,
    work: number,
    keepMs: number,
  ): Promise<number>;
  /** Takes back a job that nobody began: its client was told that there is none. @returns 1 when it was there */
  kontextReject(
    job: string,
    events: string,
    clients: string,
    open: string,
    client: string,
    work: number,
  ): Promise<number>;
  /** @returns how often the job has been begun with this time, 0 when it is gone */
  kontextBegin(job: string): Promise<number>;
  /** Puts a token for one idle worker. */
  kontextWake(wake: string): Promise<number>;
}

/** Lua: one open job less, of the client and the work in these arguments. */
const CLOSE = (client: string, work: string): string =>
  `if redis.call('HINCRBY', KEYS[3], ARGV[${client}], -1) <= 0 then redis.call('HDEL', KEYS[3], ARGV[${client}]) end
if redis.call('HINCRBY', KEYS[4], 'jobs', -1) <= 0 then redis.call('DEL', KEYS[4])
else redis.call('HINCRBYFLOAT', KEYS[4], 'work', '-' .. ARGV[${work}]) end`;

/** Teaches a connection the scripts. */
export function withScripts(redis: Redis): ScriptedRedis {
  redis.defineCommand('kontextAccept', {
    numberOfKeys: 4,
    lua: `
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HEXISTS', KEYS[1], 'outcome') == 1 then return 0 end
  return tonumber(redis.call('HGET', KEYS[3], ARGV[3]) or '1')
end
if tonumber(redis.call('HGET', KEYS[4], 'jobs') or '0') >= tonumber(ARGV[5]) then return -1 end
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'runs', 0, 'progress', 0, 'seq', 1)
redis.call('HINCRBY', KEYS[4], 'jobs', 1)
redis.call('HINCRBYFLOAT', KEYS[4], 'work', ARGV[4])
local open = redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
redis.call('XADD', KEYS[2], '1-0', 'e', '{"type":"queued","ahead":' .. (open - 1) .. '}')
redis.call('PUBLISH', '${BELL}', ARGV[1])
return open`,
  });
  redis.defineCommand('kontextReject', {
    numberOfKeys: 4,
    lua: `
if redis.call('HGET', KEYS[1], 'runs') ~= '0' or redis.call('HEXISTS', KEYS[1], 'outcome') == 1 then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2])
${CLOSE('1', '2')}
return 1`,
  });
  redis.defineCommand('kontextBegin', {
    numberOfKeys: 1,
    lua: `
if redis.call('HEXISTS', KEYS[1], 'spec') == 0 then return 0 end
return redis.call('HINCRBY', KEYS[1], 'runs', 1)`,
  });
  redis.defineCommand('kontextEmit', {
    numberOfKeys: 2,
    lua: `
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HEXISTS', KEYS[1], 'outcome') == 1 then return 0 end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'progress', ARGV[3]) end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ${MAX_EVENTS}, seq .. '-0', 'e', ARGV[2])
redis.call('PUBLISH', '${BELL}', ARGV[1])
return seq`,
  });
  redis.defineCommand('kontextEnd', {
    numberOfKeys: 4,
    lua: `
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HSETNX', KEYS[1], 'outcome', ARGV[2]) == 0 then return 0 end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('HSET', KEYS[1], 'status', ARGV[3])
redis.call('XADD', KEYS[2], seq .. '-0', 'e', ARGV[2])
${CLOSE('4', '5')}
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('PUBLISH', '${BELL}', ARGV[1])
return 1`,
  });
  redis.defineCommand('kontextWake', {
    numberOfKeys: 1,
    lua: `
redis.call('LPUSH', KEYS[1], '1')
redis.call('LTRIM', KEYS[1], 0, ${MAX_TOKENS - 1})
return 1`,
  });
  return redis as ScriptedRedis;
}
