// Where an adapter may come from: a path, URLs, a Blob, bytes, the hub; and which hosts may be asked for one.
import { mkdtempSync, openAsBlob, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkAdapters } from '../../../sdk/src/kontext/adapters/check.ts';
import { AdapterShelf } from '../../../sdk/src/kontext/adapters/shelf.ts';
import { type Model, openModel } from '../../../sdk/src/model/open.ts';
import { adapterFile } from '../../support/adapters.ts';
import { type HubServer, hubServer } from '../../support/hub-server.ts';
import { pipelineModel } from '../../support/pipeline-model.ts';

const file = adapterFile('formats/pipeline_kohya.safetensors');
const bytes = readFileSync(file);
let model: Model;
let hub: HubServer;
let server: Server;
let cache: string;
const environment = { ...process.env };
beforeAll(async () => {
  model = await openModel(pipelineModel());
  hub = await hubServer(new Map([['loras/glass.safetensors', bytes]]));
  cache = mkdtempSync(join(tmpdir(), 'kontext-adapters-'));
  process.env.HF_ENDPOINT = hub.endpoint;
  process.env.XDG_CACHE_HOME = cache;
  for (const name of ['HF_TOKEN', 'HF_HOME', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE']) delete process.env[name];
  server = createServer((request, response) => {
    const [, first, last] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
    if (first === undefined) return void response.end(bytes);
    const end = Math.min(Number(last) + 1, bytes.length);
    response.writeHead(206, { 'content-range': `bytes ${first}-${end - 1}/${bytes.length}` });
    response.end(bytes.subarray(Number(first), end));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  hub.close();
  server.close();
  server.closeAllConnections();
  for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
  Object.assign(process.env, environment);
  rmSync(cache, { recursive: true });
  await model.close();
});

const url = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}/style.safetensors?download=true`;

describe('an adapter is read', () => {
  it.each<[string, () => unknown, string]>([
    ['from a path', () => file, 'pipeline_kohya'],
    ['from a file’s URL', () => pathToFileURL(file), 'pipeline_kohya'],
    ['from a URL', () => url(), 'style'],
    ['from a URL object', () => new URL(url()), 'style'],
    ['from a Blob', () => openAsBlob(file), 'adapter 1'],
    ['from a File', () => new File([bytes], 'mine.safetensors'), 'mine'],
    ['from bytes', () => new Uint8Array(bytes), 'adapter 1'],
    ['from the hub', () => 'hf:owner/model:loras/glass.safetensors', 'glass'],
  ])('%s', async (_, make, name) => {
    const shelf = new AdapterShelf(model, undefined, false);
    const source = (await make()) as string;
    const { plans, used } = await shelf.choose(checkAdapters([{ source, scale: 0.5 }], 'the request'));
    expect(used).toEqual([{ name, scale: 0.5 }]);
    expect([...plans.keys()].sort()).toEqual(['clip', 'transformer']);
    const [share] = [...plans.get('transformer')!.beside.values()][0]!;
    const { stored } = share!.update;
    const tensor = stored.kind === 'low-rank' ? stored.down : '';
    const { bytes: size } = share!.adapter.source.tensors.get(tensor)!;
    const read = await share!.adapter.source.read(tensor, 0, size);
    expect(bytes.includes(Buffer.from(read))).toBe(true);
    await shelf.close();
  });
});

it('asks only hosts that the load allows', async () => {
  const shelf = new AdapterShelf(model, undefined, false, { access: { privateAddresses: 'refuse' } });
  const choose = (source: string) => shelf.choose(checkAdapters([{ source }], 'the request'));
  await expect(choose(url())).rejects.toMatchObject({ name: 'KontextError' });
  expect((await choose(file)).used).toHaveLength(1);
  await shelf.close();
});

it('says what is missing of an address on the hub', async () => {
  const shelf = new AdapterShelf(model, undefined, false);
  const choose = (source: string) => shelf.choose(checkAdapters([{ source }], 'the request'));
  await expect(choose('hf:owner/model')).rejects.toThrow(/is a whole repository; name a file/);
  await expect(choose('hf:owner/model:nothing.safetensors')).rejects.toMatchObject({ name: 'KontextError' });
  await shelf.close();
});
