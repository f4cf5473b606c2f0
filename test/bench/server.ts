// What the server adds to edit(), and what it carries: `npm run bench:server`. The rival is the engine called directly in
// this process. Clients share process and machine with the server.

import { readFileSync } from 'node:fs';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { createServer, listen } from '../../sdk/src/server/index.ts';
import { fakeEngine } from '../server/support/fake-engine.ts';

const picture = new Uint8Array(readFileSync('examples/demo-model/inputs/apple-on-red.png'));
const SECONDS = Number(process.argv[2] ?? 20);
const body = (steps: number) => {
  const form = new FormData();
  form.set('image', new Blob([picture]), 'apple.png');
  form.set('prompt', 'make the background blue');
  form.set('kontext', JSON.stringify({ seed: 1, steps }));
  return form;
};
const quantile = (sorted: readonly number[], q: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
const median = (values: readonly number[]) =>
  quantile(
    [...values].sort((a, b) => a - b),
    0.5,
  );
const ms = (value: number) => `${value.toFixed(1)} ms`;

await overhead();
await memory();
await load();

/** The HTTP layer alone: an engine that returns at once, called directly and through a port, in turn. */
async function overhead(): Promise<void> {
  const engine = fakeEngine();
  const server = createServer({ engine, processMetrics: false });
  const port = await listen(server.fetch, { port: 0 });
  const { encodeImage } = await import('../../sdk/src/image/node.ts');
  const direct: number[] = [];
  const served: number[] = [];
  for (let i = 0; i < 220; i++) {
    const begun = performance.now();
    const { image } = await engine.edit({ image: picture, prompt: 'x', steps: 1, seed: 1 });
    await encodeImage(image, 'png');
    const between = performance.now();
    const answer = await fetch(`${port.url}/v1/images/edits`, { method: 'POST', body: body(1) });
    await answer.json();
    if (i < 20) continue;
    direct.push(between - begun);
    served.push(performance.now() - between);
  }
  console.log(
    `HTTP layer, engine that returns at once: direct ${ms(median(direct))}, served ${ms(median(served))}, added ${ms(median(served) - median(direct))} (medians of 200, client in the same process)`,
  );
  await port.stop();
  await server.close();
}

/** 2,000 requests: the process must not grow. */
async function memory(): Promise<void> {
  const server = createServer({ engine: fakeEngine(), processMetrics: false });
  const port = await listen(server.fetch, { port: 0 });
  const rss: number[] = [];
  for (let i = 1; i <= 2000; i++) {
    await (await fetch(`${port.url}/v1/images/edits`, { method: 'POST', body: body(1) })).arrayBuffer();
    if (i % 500 === 0) {
      globalThis.gc?.();
      rss.push(process.memoryUsage().rss / 2 ** 20);
    }
  }
  console.log(`memory after 500, 1000, 1500, 2000 requests: ${rss.map((mib) => mib.toFixed(0)).join(', ')} MiB`);
  await port.stop();
  await server.close();
}

/** Throughput and latency with the demo model. */
async function load(): Promise<void> {
  const engine = await Kontext.load(demoModel(), { memory: 'resident' });
  const direct: number[] = [];
  for (let i = 0; i < 6; i++) {
    const begun = performance.now();
    await engine.edit({ image: picture, prompt: 'make the background blue', seed: 1, steps: 4 });
    if (i > 0) direct.push(performance.now() - begun);
  }
  console.log(`demo model, 4 steps, edit() directly: ${ms(median(direct))}`);
  const server = createServer({
    models: [{ name: 'demo', engine, defaults: engine.defaults }],
    maxWaiting: 1000,
    processMetrics: false,
  });
  const port = await listen(server.fetch, { port: 0 });
  for (const clients of [1, 4, 32, 256]) {
    const times: number[] = [];
    const until = performance.now() + SECONDS * 1000;
    const begun = performance.now();
    await Promise.all(
      Array.from({ length: clients }, async () => {
        while (performance.now() < until) {
          const at = performance.now();
          const answer = await fetch(`${port.url}/v1/images/edits`, { method: 'POST', body: body(4) });
          await answer.json();
          if (answer.ok) times.push(performance.now() - at);
        }
      }),
    );
    const took = (performance.now() - begun) / 1000;
    times.sort((a, b) => a - b);
    const perSecond = times.length / took;
    console.log(
      `${clients} clients: ${perSecond.toFixed(2)} edits a second, p50 ${ms(quantile(times, 0.5))}, p95 ${ms(quantile(times, 0.95))}, mean wait in the queue ${ms(Math.max(0, times.reduce((a, b) => a + b, 0) / times.length - 1000 / perSecond))}`,
    );
  }
  await port.stop();
  await server.close();
  await engine.close();
}
