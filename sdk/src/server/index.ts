// kontext-webgpu/server: FLUX.1 Kontext over HTTP, shaped like OpenAI's images API.
// An entry of its own, so that nothing of it reaches a page; its libraries are optional peers.

export type { ModerationRequest } from './http/accept.ts';
export { ApiError, type ApiErrorBody } from './http/errors.ts';
export type { Client } from './http/job-request.ts';
export { type ApiKey, checkKeys, makeKey, type NewKey } from './http/keys.ts';
export type { Logger } from './http/logger.ts';
export { createMetrics, type Metrics } from './http/metrics.ts';
export { openApiDocument } from './http/openapi.ts';
export type * from './jobs/types.ts';
export { type LocalModel, LocalQueue, type LocalQueueOptions } from './local/local-queue.ts';
export { type ListeningServer, type ListenOptions, listen } from './node/listen.ts';
export { RedisQueue, type RedisQueueOptions, type WorkerReport } from './redis/redis-queue.ts';
export { RedisWorker, type RedisWorkerOptions } from './redis/redis-worker.ts';
export { createServer, type KontextServer, type QueueAndStore, type ServerOptions } from './server.ts';
export { FolderStore } from './stores/folder.ts';
export { MemoryStore } from './stores/memory.ts';
