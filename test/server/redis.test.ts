// The queue on Redis: workers in processes of their own, killed, cancelled, restarted.
import type { ChildProcess } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SILENT } from '../../sdk/src/server/http/logger.ts';
import {
  createServer,
  type JobEvent,
  type JobSpec,
  type KontextServer,
  RedisQueue,
} from '../../sdk/src/server/index.ts';
import { connectRedis } from '../../sdk/src/server/redis/connect.ts';
import { keys } from '../../sdk/src/server/redis/scripts.ts';
import { exited, startScript } from './support/processes.ts';
import { hasRedis, TestRedis } from './support/redis.ts';

describe.skipIf(!hasRedis)('on Redis', () => {
  let redis: TestRedis;
  let queue: RedisQueue;
  let server: KontextServer;
  const children: ChildProcess[] = [];

  const worker = async (stepMs: number, lockMs = 2_000) => {
    const child = await startScript('worker-process.ts', [redis.url, String(stepMs), String(lockMs)]);
    children.push(child);
    return child;
  };
  const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
    server.fetch(
      new Request(`http://host${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify(body),
      }),
    );
  const follow = async (id: string, until: (event: JobEvent) => boolean = () => false) => {
    const events: JobEvent[] = [];
    const stop = new AbortController();
    for await (const event of queue.events(id, 0, stop.signal)) {
      events.push(event);
      if (until(event)) break;
    }
    return events;
  };

  beforeAll(async () => {
    redis = await TestRedis.start();
  });
  beforeEach(async () => {
    queue = await RedisQueue.open(redis.url);
    server = createServer({ queue: { queue, store: queue.store }, processMetrics: false });
  });
  afterEach(async () => {
    for (const child of children.splice(0)) {
      child.kill('SIGKILL');
      await exited(child);
    }
    await server.close();
  });
  afterAll(() => redis.stop());

  it('refuses work while there is no worker, and is not ready', async () => {
    expect((await server.fetch(new Request('http://host/readyz'))).status).toBe(503);
    const refused = await post('/v1/images/generations', { prompt: 'x' });
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '5']);
  });

  it('answers as the queue in the process does, partial pictures included', async () => {
    await worker(5);
    const answer = await post('/v1/images/generations', { prompt: 'a fox', n: 2, size: '64x64', kontext: { seed: 9 } });
    expect(answer.status).toBe(200);
    const { data, kontext } = (await answer.json()) as { data: { b64_json: string }[]; kontext: { seed: string } };
    expect([data.length, kontext.seed]).toEqual([2, '9']);
    const streamed = await post('/v1/images/generations', {
      prompt: 'a fox',
      stream: true,
      partial_images: 2,
      size: '64x64',
    });
    const types = [...(await streamed.text()).matchAll(/^event: (image\S+)/gm)].map(([, type]) => type);
    expect(types).toEqual([
      'image_generation.partial_image',
      'image_generation.partial_image',
      'image_generation.completed',
    ]);
  });

  it('begins a job again when its worker is killed, once visible to the client', async () => {
    const first = await worker(400, 1_000);
    const { id } = (await (
      await post('/v1/jobs', { prompt: 'a fox', size: '64x64', kontext: { seed: 5 } })
    ).json()) as { id: string };
    await follow(id, ({ type }) => type === 'progress');
    first.kill('SIGKILL');
    await exited(first);
    await worker(1, 1_000);
    const events = await follow(id);
    expect(events.filter(({ type }) => type === 'running').map((event) => (event as { run: number }).run)).toEqual([
      1, 2,
    ]);
    expect(events.filter(({ type }) => type === 'done')).toHaveLength(1);
    const state = await queue.state(id);
    expect([state!.status, state!.runs]).toEqual(['done', 2]);
    expect((await queue.stats()).waiting).toBe(0);
  });

  it('cancels across processes, running or waiting', async () => {
    await worker(200);
    const ids: string[] = [];
    for (let i = 0; i < 2; i++) {
      ids.push(((await (await post('/v1/jobs', { prompt: 'a fox', size: '64x64' })).json()) as { id: string }).id);
    }
    await follow(ids[0]!, ({ type }) => type === 'running');
    for (const id of [...ids].reverse()) {
      const answer = await server.fetch(new Request(`http://host/v1/jobs/${id}`, { method: 'DELETE' }));
      expect(answer.status).toBe(204);
      expect((await follow(id)).at(-1)!.type).toBe('cancelled');
    }
    expect(await queue.stats()).toMatchObject({ waiting: 0 });
  });

  it('gives one job for one Idempotency-Key', async () => {
    await worker(1);
    const headers = { 'idempotency-key': 'order-7' };
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => post('/v1/jobs', { prompt: 'a fox', size: '64x64' }, headers)),
    );
    const ids = await Promise.all(answers.map(async (answer) => ((await answer.json()) as { id: string }).id));
    expect(new Set(ids).size).toBe(1);
    expect((await post('/v1/jobs', { prompt: 'another', size: '64x64' }, headers)).status).toBe(422);
    await follow(ids[0]!);
    expect((await queue.state(ids[0]!))!.runs).toBe(1);
  });

  it('lets a worker that is told to end finish its job', async () => {
    const child = await worker(200);
    const { id } = (await (await post('/v1/jobs', { prompt: 'a fox', size: '64x64' })).json()) as { id: string };
    await follow(id, ({ type }) => type === 'running');
    child.kill('SIGTERM');
    await exited(child);
    expect(child.exitCode).toBe(0);
    expect((await queue.state(id))!.status).toBe('done');
  });

  it('runs a job whose acceptance was sent twice, because Redis died before it answered', async () => {
    await worker(5);
    const { id: other } = (await (await post('/v1/jobs', { prompt: 'x', size: '64x64' })).json()) as { id: string };
    await follow(other);
    const spec: JobSpec = { ...(await queue.state(other))!.spec, id: crypto.randomUUID() };
    const connection = await connectRedis(redis.url, { patient: false, log: SILENT });
    const own = keys.opened(spec.id);
    // The first time: done, and the answer lost. The queue's own attempt is the second.
    await connection.kontextAccept(...own, spec.id, JSON.stringify(spec), spec.client, spec.work, 10);
    connection.disconnect();
    await queue.add(spec);
    const types = (await follow(spec.id)).map(({ type }) => type);
    expect([types[0], types.at(-1)]).toEqual(['queued', 'done']);
    expect(types.filter((type) => type === 'queued')).toHaveLength(1);
    expect((await queue.stats()).waiting).toBe(0);
  });

  it('takes a job back that was refused because Redis did not answer in time', { timeout: 60_000 }, async () => {
    const first = await worker(5);
    const { id: other } = (await (await post('/v1/jobs', { prompt: 'x', size: '64x64' })).json()) as { id: string };
    await follow(other);
    first.kill('SIGKILL');
    await exited(first);
    const spec: JobSpec = { ...(await queue.state(other))!.spec, id: crypto.randomUUID() };
    redis.pause();
    await expect(queue.add(spec)).rejects.toMatchObject({ status: 503 });
    // What was sent is done now, and undone.
    redis.resume();
    const gone = async () => (await queue.state(spec.id)) === undefined && (await queue.stats()).waiting === 0;
    for (let tries = 0; tries < 50 && !(await gone()); tries++)
      await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await gone()).toBe(true);
    // The same id may come again, as with an Idempotency-Key.
    await queue.add(spec);
    await worker(5);
    expect((await follow(spec.id)).at(-1)?.type).toBe('done');
  });

  it('loses nothing while Redis restarts', async () => {
    await worker(100, 3_000);
    const { id } = (await (await post('/v1/jobs', { prompt: 'a fox', size: '64x64' })).json()) as { id: string };
    await follow(id, ({ type }) => type === 'running');
    await redis.kill();
    const during = post('/v1/jobs', { prompt: 'second', size: '64x64' });
    await redis.start();
    expect((await follow(id)).at(-1)!.type).toBe('done');
    const second = (await (await during).json()) as { id: string };
    expect((await follow(second.id)).at(-1)!.type).toBe('done');
  });
});
