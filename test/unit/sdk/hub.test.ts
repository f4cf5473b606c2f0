// Models from the hub: what is downloaded and from where, gates, cut connections, damage, resumption, and Hugging Face's own cache.
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isHubAddress, parseHubAddress } from '../../../sdk/src/hub/address.ts';
import { openHubFile } from '../../../sdk/src/hub/file.ts';
import { downloadHub, openHub } from '../../../sdk/src/hub/open.ts';
import { plainSha256 } from '../../../sdk/src/hub/sha256.ts';
import type { DownloadProgress } from '../../../sdk/src/hub/transfer.ts';
import { justInTime } from '../../../sdk/src/kontext/programs.ts';
import { type ModelSource, openModel } from '../../../sdk/src/model/open.ts';
import { resolveSource } from '../../../sdk/src/model/resolve.ts';
import { filesBelow, type HubServer, hubServer } from '../../support/hub-server.ts';
import { gguf, safetensors, split, tiny, tinyBytes } from '../../support/model-files.ts';
import { writePipelineModel } from '../../support/pipeline-model.ts';

let folder: string;
let hub: HubServer;
let model: string;
const big = Buffer.alloc(20_000_000);
for (let i = 0; i < big.length; i += 4) big.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);

const environment = { ...process.env };
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-hub-'));
  model = join(folder, 'model');
  writePipelineModel(model);
});
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(async () => {
  const files = filesBelow(model);
  files.set('README.md', Buffer.from('not needed'));
  files.set('flux-q4.gguf', big);
  hub = await hubServer(files);
  process.env.HF_ENDPOINT = hub.endpoint;
  process.env.XDG_CACHE_HOME = mkdtempSync(join(folder, 'cache-'));
  for (const name of ['HF_TOKEN', 'HF_HOME', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE']) delete process.env[name];
});
afterEach(() => {
  hub.close();
  for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
  Object.assign(process.env, environment);
});

const read = async (address: string, load = {}) => {
  const files = await openHub(address, load);
  const opened = await openModel(files);
  await opened.close();
  return files.label;
};
const part = (name: string) =>
  readdirSync(process.env.XDG_CACHE_HOME!, { recursive: true }).find((path) => String(path).endsWith(name)) as string;

it('reads addresses, and refuses what is none', () => {
  expect(parseHubAddress('hf:a/b')).toEqual({ repository: 'a/b', revision: 'main' });
  expect(parseHubAddress('hf:a.b/c-d_e@refs/pr/1:x/y.gguf')).toEqual({
    repository: 'a.b/c-d_e',
    revision: 'refs/pr/1',
    file: 'x/y.gguf',
  });
  // As copied from the address bar.
  for (const page of ['https://huggingface.co/a/b', 'https://huggingface.co/a/b/', 'https://hf.co/a/b?library=x#y']) {
    expect(isHubAddress(page), page).toBe(true);
    expect(parseHubAddress(page)).toEqual({ repository: 'a/b', revision: 'main' });
  }
  expect(parseHubAddress('https://huggingface.co/a/b/tree/v1.0')).toEqual({ repository: 'a/b', revision: 'v1.0' });
  expect(parseHubAddress('https://huggingface.co/a/b/blob/main/x/y.gguf')).toEqual({
    repository: 'a/b',
    revision: 'main',
    file: 'x/y.gguf',
  });
  for (const other of [
    'https://huggingface.co/a/b/resolve/main/x',
    'https://example.com/a/b',
    'https://huggingface.co/datasets/a/b',
  ]) {
    expect(isHubAddress(other), other).toBe(false);
  }
  for (const bad of ['hf:a', 'hf:a/b/c', 'hf:/b', 'hf:a/..', 'hf:a/b@', 'hf:a/b@../x', 'hf:a/b?x', 'hf:a/b:']) {
    expect(() => parseHubAddress(bad), bad).toThrow(/hf:owner\/name/);
  }
  for (const bad of ['hf:a/b:../x', 'hf:a/b:/etc/passwd', 'hf:a/b:x?y']) {
    expect(() => parseHubAddress(bad), bad).toThrow(/not the name of a file/);
  }
});

it('downloads what the model needs, verified, with total progress; the next time nothing', async () => {
  const events: DownloadProgress[] = [];
  const place = await read('hf:owner/model', { onProgress: (event: DownloadProgress) => events.push(event) });
  expect(place).toBe(join(process.env.XDG_CACHE_HOME!, 'kontext-webgpu', 'owner--model', hub.commit));
  expect(existsSync(join(place, 'README.md'))).toBe(false);
  for (const name of ['transformer/config.json', 'vae/diffusion_pytorch_model.safetensors']) {
    expect(readFileSync(join(place, name)).equals(hub.files.get(name)!)).toBe(true);
  }
  const last = events.at(-1)!;
  expect(last.loadedBytes).toBe(last.totalBytes);
  expect(last.bytesPerSecond).toBeGreaterThan(0);
  expect(last.remainingMs).toBe(0);
  // Everything is asked for at the commit, and the token's host is the hub alone.
  expect(hub.log.filter(({ path }) => path.includes('/resolve/')).every(({ path }) => path.includes(hub.commit))).toBe(
    true,
  );
  hub.log.length = 0;
  await read('hf:owner/model');
  const bytes = hub.log.flatMap(({ range }) => range ?? []).filter((range) => !range.endsWith('-0'));
  expect(bytes.every((range) => Number(/-(\d+)/.exec(range)![1]) < 100_000)).toBe(true);
});

it('of a repository that holds the transformer twice, downloads one', async () => {
  // As FLUX.1's own: one file at the top, and diffusers' folders with shards.
  const whole = readFileSync(join(model, 'transformer/diffusion_pytorch_model.safetensors'));
  hub.files.set('flux1-kontext-dev.safetensors', tinyBytes('transformer'));
  hub.files.set('ae.safetensors', hub.files.get('vae/diffusion_pytorch_model.safetensors')!);
  const place = await read('hf:owner/model');
  const there = readdirSync(place, { recursive: true }).map(String);
  expect(there).toContain('flux1-kontext-dev.safetensors');
  expect(there).not.toContain('transformer/diffusion_pytorch_model.safetensors');
  expect(there).not.toContain('vae/diffusion_pytorch_model.safetensors');
  expect(there).not.toContain('flux-q4.gguf');
  const sent = hub.log.filter(({ host }) => host === 'storage').map(({ range }) => range);
  expect(sent.length).toBeGreaterThan(0);
  expect(whole.length).toBeGreaterThan(100_000);
  // What was downloaded is found complete the next time.
  hub.log.length = 0;
  await read('hf:owner/model');
  expect(hub.log.filter(({ path: asked }) => asked.includes('/resolve/'))).toEqual([]);
});

describe('gates', () => {
  it('name the page to accept, and the token goes to the hub only', async () => {
    hub.gate = 'secret';
    const page = `${hub.endpoint}/owner/model`;
    await expect(read('hf:owner/model')).rejects.toMatchObject({
      code: 'download-failed',
      message: expect.stringContaining(`accept its licence at ${page}`),
      details: { status: 401, page },
    });
    process.env.HF_TOKEN = 'of another';
    await expect(read('hf:owner/model')).rejects.toThrow(/gated.*token belongs to that account/);
    hub.log.length = 0;
    await read('hf:owner/model', { token: 'secret' });
    expect(hub.log.filter(({ host, token }) => host === 'storage' && token !== undefined)).toEqual([]);
    expect(hub.log.filter(({ host }) => host === 'storage').length).toBeGreaterThan(0);
  });

  it('are told from what is not there', async () => {
    await expect(read('hf:owner/none')).rejects.toThrow(/gated or private, or there is no such repository/);
    await expect(read('hf:owner/model@v9')).rejects.toThrow(/no such revision/);
    await expect(downloadHub('hf:owner/model:none.gguf')).rejects.toThrow(/no file none\.gguf/);
  });
});

describe('a large file', () => {
  const get = async () => {
    const bytes = await openHubFile('hf:owner/model:flux-q4.gguf');
    const whole = Buffer.from(await bytes.read(0, bytes.size));
    await bytes.close();
    return whole;
  };

  it('comes in parallel ranges, over busy servers and cut connections', async () => {
    let faults = 6;
    hub.fault = (request, response, host) => {
      if (host !== 'storage' || request.headers.range?.endsWith('=0-0') || faults-- <= 0) return false;
      if (faults % 3 === 0) response.writeHead(429, { 'retry-after': '0' }).end();
      else if (faults % 3 === 1) request.socket.destroy();
      else response.writeHead(503).end();
      return true;
    };
    expect((await get()).equals(big)).toBe(true);
    const starts = hub.log.filter(({ host }) => host === 'storage').map(({ range }) => range);
    expect(new Set(starts).size).toBe(4);
  });

  it('goes on where it was cut off, in another process too', async () => {
    const stop = new AbortController();
    const first = downloadHub('hf:owner/model:flux-q4.gguf', {
      signal: stop.signal,
      onProgress: ({ loadedBytes }) => loadedBytes > 9e6 && stop.abort(),
    });
    await expect(first).rejects.toMatchObject({ code: 'aborted' });
    const there = statSync(join(process.env.XDG_CACHE_HOME!, part('.part'))).size;
    expect(there).toBeGreaterThan(8e6);
    hub.log.length = 0;
    expect((await get()).equals(big)).toBe(true);
    const asked = hub.log.filter(({ host, range }) => host === 'storage' && range !== 'bytes=0-0');
    expect(asked[0]!.range).toMatch(new RegExp(`^bytes=${there}-`));
    expect(part('.part')).toBeUndefined();
  });

  it('of another release is not gone on with', async () => {
    const stop = new AbortController();
    await downloadHub('hf:owner/model:flux-q4.gguf', {
      signal: stop.signal,
      onProgress: ({ loadedBytes }) => loadedBytes > 9e6 && stop.abort(),
    }).catch(() => {});
    const changed = Buffer.from(big.map((value) => value ^ 255));
    hub.files.set('flux-q4.gguf', changed);
    expect((await get()).equals(changed)).toBe(true);
  });

  it('that comes damaged is refused, and not kept', async () => {
    hub.fault = (request, response, host) => {
      const [, start, end] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
      if (host !== 'storage' || Number(start) === 0) return false;
      const hash = createHash('sha256').update(big).digest('hex');
      const last = Math.min(Number(end), big.length - 1);
      const bytes = Buffer.from(big.subarray(Number(start), last + 1));
      bytes[5]! ^= 4;
      response
        .writeHead(206, { etag: `"storage-${hash}"`, 'content-range': `bytes ${start}-${last}/${big.length}` })
        .end(bytes);
      return true;
    };
    await expect(get()).rejects.toThrow(/another SHA-256/);
    expect([part('.part'), part('flux-q4.gguf')]).toEqual([undefined, undefined]);
    hub.fault = () => false;
    expect((await get()).equals(big)).toBe(true);
  });
});

describe('files one by one', () => {
  const parts = {
    transformer: 'hf:owner/model:gguf/kontext-Q8-00002-of-00003.gguf',
    vae: 'hf:owner/model:vae/diffusion_pytorch_model.safetensors',
    clip: 'hf:owner/model:text_encoder/model.safetensors',
    t5: 'hf:owner/model:text_encoder_2/model.safetensors',
  };
  const names = [1, 2, 3].map((i) => `gguf/kontext-Q8-0000${i}-of-00003.gguf`);
  beforeEach(() => {
    for (const [i, shard] of split(tiny('transformer'), 3).entries()) {
      hub.files.set(names[i]!, Buffer.from(gguf(shard, { 'split.no': i, 'split.count': 3 })));
    }
  });
  const open = async (source: ModelSource, load = {}) => {
    const opened = await openModel(await resolveSource(source, load));
    try {
      await justInTime().specs(opened);
      return { label: opened.label, count: opened.parts.transformer.weights.tensors.size };
    } finally {
      await opened.close();
    }
  };
  const there = () => readdirSync(process.env.XDG_CACHE_HOME!, { recursive: true }).map(String);

  it('bring the other parts of a split GGUF, and their networks’ configs', async () => {
    const { label, count } = await open(parts);
    expect(count).toBe(tiny('transformer').size);
    expect(label).toMatch(/kontext-Q8-00002-of-00003\.gguf$/);
    for (const name of [...names, 'text_encoder/config.json', 'text_encoder_2/config.json']) {
      expect(there().some((path) => path.endsWith(name))).toBe(true);
    }
    expect(there().some((path) => path.endsWith('transformer/diffusion_pytorch_model.safetensors'))).toBe(false);
    // The command that downloads does the same.
    const into = join(process.env.XDG_CACHE_HOME!, 'elsewhere');
    await downloadHub(parts.transformer, {}, into);
    expect(readdirSync(join(into, 'gguf')).sort()).toEqual(names.map((name) => name.slice(5)));
  });

  it('say which part is not in the repository', async () => {
    hub.files.delete(names[2]!);
    await expect(open(parts)).rejects.toThrow(/part 2 of 3, and kontext-Q8-00003-of-00003\.gguf is not beside it/);
    expect(there().filter((path) => path.endsWith('.gguf'))).toEqual([]);
  });

  it('bring the shards that an index names', async () => {
    const shards = split(tiny('transformer'), 2);
    const of = (i: number) => `s-0000${i + 1}-of-00002.safetensors`;
    const weights = shards.flatMap((shard, i) => [...shard.keys()].map((key) => [key, of(i)] as const));
    const index = 'bfl/s.safetensors.index.json';
    hub.files.set(index, Buffer.from(JSON.stringify({ weight_map: Object.fromEntries(weights) })));
    for (const [i, shard] of shards.entries()) hub.files.set(`bfl/${of(i)}`, Buffer.from(safetensors(shard)));
    expect((await open({ ...parts, transformer: `hf:owner/model:${index}` })).count).toBe(tiny('transformer').size);
  });

  it('for a plan are read where they are', async () => {
    for (const source of [parts, 'hf:owner/model']) {
      hub.log.length = 0;
      expect((await open(source, { headersOnly: true })).count).toBeGreaterThan(10);
      expect(there().filter((path) => /\.(safetensors|gguf)$/.test(path))).toEqual([]);
      expect(hub.log.length).toBeGreaterThan(3);
    }
  });

  it('are not asked for where the hub is forbidden', async () => {
    process.env.HF_HUB_OFFLINE = '1';
    await expect(open(parts)).rejects.toThrow(/HF_HUB_OFFLINE/);
    expect(hub.log).toEqual([]);
  });
});

it('uses what Hugging Face’s own tools have downloaded, and asks nobody', async () => {
  const cache = join(process.env.XDG_CACHE_HOME!, 'huggingface/hub/models--owner--model');
  const snapshot = join(cache, 'snapshots', hub.commit);
  mkdirSync(join(cache, 'refs'), { recursive: true });
  mkdirSync(join(cache, 'blobs'));
  writeFileSync(join(cache, 'refs/main'), hub.commit);
  for (const [name, bytes] of hub.files) {
    const blob = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(join(cache, 'blobs', blob), bytes);
    mkdirSync(join(snapshot, name, '..'), { recursive: true });
    const up = '../'.repeat(name.split('/').length + 1);
    symlinkSync(`${up}blobs/${blob}`, join(snapshot, name));
  }
  expect(await read('hf:owner/model')).toBe(snapshot);
  expect(await read(`hf:owner/model@${hub.commit}`)).toBe(snapshot);
  const bytes = await openHubFile('hf:owner/model:flux-q4.gguf');
  expect(bytes.size).toBe(big.length);
  await bytes.close();
  expect(hub.log).toEqual([]);
  process.env.HF_HUB_OFFLINE = '1';
  await expect(read('hf:owner/other')).rejects.toThrow(/HF_HUB_OFFLINE/);
});

it('the plain SHA-256 of pages is the platform’s', () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 127, 1000, 99_999]) {
    const bytes = big.subarray(0, length);
    const hash = plainSha256();
    for (let at = 0; at < length; at += 37) hash.update(bytes.subarray(at, Math.min(length, at + 37)));
    expect(hash.digest(), `${length}`).toBe(createHash('sha256').update(bytes).digest('hex'));
  }
});
