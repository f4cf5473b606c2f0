// Everything goes wrong at once: clients, workers, Redis, the disk. Every accepted job ends in exactly one outcome, and the
// server answers to the end. KONTEXT_CHAOS_SECONDS makes it longer than the few seconds of the default run.
import type { ChildProcess } from 'node:child_process';
import { connect } from 'node:net';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createServer,
  type JobOutcome,
  type KontextServer,
  type ListeningServer,
  listen,
  RedisQueue,
} from '../../sdk/src/server/index.ts';
import { random as seeded } from '../support/random.ts';
import { exited, startScript } from './support/processes.ts';
import { hasRedis, TestRedis } from './support/redis.ts';
import { UnreliableStore } from './support/unreliable-store.ts';

const SECONDS = Number(process.env.KONTEXT_CHAOS_SECONDS ?? 12);
const WORKERS = 2;
const LOCK_MS = 1_500;

describe.skipIf(!hasRedis)('chaos', () => {
  const random = seeded(20_261_125);
  let redis: TestRedis;
  let queue: RedisQueue;
  let store: UnreliableStore;
  let server: KontextServer;
  let port: ListeningServer;
  let png: Uint8Array<ArrayBuffer>;
  const workers: ChildProcess[] = [];
  const counts: Record<string, number> = {};
  const count = (what: string) => {
    counts[what] = (counts[what] ?? 0) + 1;
  };

  beforeAll(async () => {
    redis = await TestRedis.start();
    store = new UnreliableStore();
    queue = await RedisQueue.open(redis.url, { store });
    server = createServer({ queue: { queue, store }, maxBodyBytes: 200_000, processMetrics: false });
    port = await listen(server.fetch, {
      port: 0,
      headersTimeoutMs: 1_000,
      requestTimeoutMs: 2_000,
      answerTimeoutMs: 2_000,
    });
    const picture = sharp({ create: { width: 32, height: 32, channels: 3, background: '#00a' } });
    png = Uint8Array.from(await picture.png().toBuffer());
    for (let i = 0; i < WORKERS; i++) await startWorker(i);
  });
  afterAll(async () => {
    for (const worker of workers) worker.kill('SIGKILL');
    // In this order: who still waits for a job is answered, and the port can close.
    await server.close();
    await port.stop();
    await redis.stop();
    store.remove('');
  });

  const startWorker = async (i: number) => {
    workers[i] = await startScript('worker-process.ts', [redis.url, '20', String(LOCK_MS), store.folder, '0.02']);
  };

  it(`for ${SECONDS} seconds`, { timeout: (SECONDS + 120) * 1000 }, async () => {
    const until = Date.now() + SECONDS * 1000;
    const accepted: string[] = [];
    const attacks = [postJob, postJob, postJob, edit, hangUp, garbage, malformedForm, slow, large, cancelOne];
    async function client() {
      while (Date.now() < until) {
        await attacks[Math.floor(random() * attacks.length)]!();
        await new Promise((resolve) => setTimeout(resolve, random() * 60));
      }
    }
    async function postJob() {
      const answer = await send('/v1/jobs', JSON.stringify({ prompt: 'x', size: '64x64', kontext: { steps: 4 } }));
      count(`POST /v1/jobs: ${answer?.status ?? 'no answer'}`);
      if (answer?.status === 202) accepted.push(((await answer.json()) as { id: string }).id);
    }
    async function edit() {
      const form = new FormData();
      form.set('image', new Blob([png]), 'a.png');
      form.set('prompt', 'x');
      form.set('kontext', '{"steps":3}');
      form.set('size', '64x64');
      const answer = await fetch(`${port.url}/v1/images/edits`, { method: 'POST', body: form }).catch(() => undefined);
      count(`edit: ${answer?.status ?? 'no answer'}`);
      await answer?.arrayBuffer().catch(() => undefined);
    }
    async function hangUp() {
      const gone = AbortSignal.timeout(30 + Math.floor(random() * 100));
      await send('/v1/images/generations', JSON.stringify({ prompt: 'x', size: '64x64', stream: random() < 0.5 }), gone)
        .then((answer) => answer?.text())
        .catch(() => undefined);
      count('hung up');
    }
    async function garbage() {
      count('garbage');
      await raw(Buffer.from(Array.from({ length: 200 }, () => Math.floor(random() * 256))), 50);
    }
    async function malformedForm() {
      const answer = await send(
        '/v1/images/edits',
        '--b\r\ncontent-disposition: form-data; name="image"; filename="',
        undefined,
        'multipart/form-data; boundary=b',
      );
      count(`malformed form: ${answer?.status ?? 'no answer'}`);
    }
    async function slow() {
      count('slow client');
      await raw(Buffer.from('POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{'), 200);
    }
    async function large() {
      const answer = await send('/v1/jobs', 'x'.repeat(300_000));
      count(`too large: ${answer?.status ?? 'no answer'}`);
    }
    async function cancelOne() {
      const id = accepted[Math.floor(random() * accepted.length)];
      if (id === undefined) return;
      deleted.add(id);
      const answer = await fetch(`${port.url}/v1/jobs/${id}`, { method: 'DELETE' }).catch(() => undefined);
      count(`DELETE: ${answer?.status ?? 'no answer'}`);
    }
    async function killer() {
      while (Date.now() < until) {
        await new Promise((resolve) => setTimeout(resolve, 1_500 + random() * 1_500));
        const i = Math.floor(random() * WORKERS);
        workers[i]!.kill('SIGKILL');
        await exited(workers[i]!);
        count('worker killed');
        await startWorker(i);
      }
    }
    async function restarter() {
      await new Promise((resolve) => setTimeout(resolve, SECONDS * 300));
      for (let at = 0; at < Math.max(1, SECONDS / 20) && Date.now() < until; at++) {
        await redis.kill();
        await new Promise((resolve) => setTimeout(resolve, random() * 500));
        await redis.start();
        count('Redis restarted');
        await new Promise((resolve) => setTimeout(resolve, 10_000));
      }
    }
    async function diskFiller() {
      while (Date.now() < until) {
        await new Promise((resolve) => setTimeout(resolve, 800));
        store.full = random() < 0.3;
        if (store.full) count('disk full for 0.8 s');
      }
      store.full = false;
    }
    await Promise.all([client(), client(), client(), client(), killer(), restarter(), diskFiller()]);

    // Quiet again: whatever was accepted ends.
    const outcomes = await Promise.all(accepted.map(outcomeOf));
    for (const outcome of outcomes) count(`outcome: ${outcome}`);
    expect(outcomes.filter((outcome) => outcome === 'none')).toEqual([]);
    expect((await fetch(`${port.url}/healthz`)).status).toBe(200);
    // Open work is back at nothing, so no outcome was counted twice or not at all.
    expect((await settledStats()).waiting).toBe(0);
    expect(await store.damaged()).toEqual([]);
    console.log(
      `${accepted.length} jobs accepted in ${SECONDS} s\n${Object.entries(counts)
        .sort()
        .map(([what, n]) => `  ${what}: ${n}`)
        .join('\n')}`,
    );

    async function outcomeOf(id: string): Promise<JobOutcome['type'] | 'none' | 'dropped'> {
      const events: string[] = [];
      for await (const { type } of queue.events(id, 0, AbortSignal.timeout(60_000))) events.push(type);
      const ends = events.filter((type) => type === 'done' || type === 'failed' || type === 'cancelled');
      expect(ends.length, `${id}: ${events}`).toBeLessThanOrEqual(1);
      // A DELETE after the end drops the job with its events.
      if (ends.length === 0) return deleted.has(id) && !(await queue.state(id)) ? 'dropped' : 'none';
      return ends[0] as JobOutcome['type'];
    }
  });

  const deleted = new Set<string>();
  async function settledStats() {
    for (let tries = 0; tries < 60; tries++) {
      const stats = await queue.stats();
      if (stats.waiting === 0 && stats.running === 0) return stats;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    return queue.stats();
  }
  function send(
    path: string,
    body: string,
    signal?: AbortSignal,
    type = 'application/json',
  ): Promise<Response | undefined> {
    const init = { method: 'POST', body, headers: { 'content-type': type }, ...(signal && { signal }) };
    return fetch(`${port.url}${path}`, init).catch(() => undefined);
  }
  function raw(bytes: Uint8Array, ms: number): Promise<void> {
    return new Promise((resolve) => {
      const socket = connect(Number(new URL(port.url).port), '127.0.0.1', () => socket.write(bytes));
      socket.on('error', () => {});
      setTimeout(() => {
        socket.destroy();
        resolve();
      }, ms);
    });
  }
});
