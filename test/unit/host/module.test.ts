// Starting the WASM module, its memory and its size.
// The arena is all the memory management there is: blocks must merge again, scratch must be reused, and nothing may be imported.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type Host, loadHost } from '../../../sdk/src/host/module.ts';
import { buildClipTable, buildT5Table } from '../../../sdk/src/host/tables.ts';
import { files } from '../../support/tokenizers.ts';

const wasm = readFileSync(new URL('../../../sdk/src/host/kontext.wasm', import.meta.url));
const gzipped = (data: Uint8Array) => gzipSync(data, { level: 9 }).length;

describe('sizes', () => {
  it('keeps the module below 60 KiB gzipped', () => expect(gzipped(wasm)).toBeLessThan(60 * 1024));

  it('keeps each vocabulary table below 1 MiB gzipped', () => {
    const clip = buildClipTable({ vocab: files.vocab(), merges: files.merges() });
    const t5 = buildT5Table({ tokenizerJson: files.t5() });
    expect(gzipped(clip)).toBeLessThan(2 ** 20);
    expect(gzipped(t5)).toBeLessThan(2 ** 20);
  });
});

describe('loadHost', () => {
  it('imports nothing', () => expect(WebAssembly.Module.imports(new WebAssembly.Module(wasm))).toEqual([]));

  it('starts from bytes, from a compiled module, from a URL and from the bundle', async () => {
    const server = createServer((request, response) => {
      response.statusCode = request.url === '/kontext.wasm' ? 200 : 404;
      response.end(wasm);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      const hosts = await Promise.all([
        loadHost(),
        loadHost({ wasm }),
        loadHost({ wasm: new WebAssembly.Module(wasm) }),
        loadHost({ wasmUrl: `${origin}/kontext.wasm` }),
      ]);
      for (const host of hosts) expect(host.scratch(10)).toBeGreaterThan(0);
      await expect(loadHost({ wasmUrl: `${origin}/other` })).rejects.toMatchObject({ code: 'download-failed' });
    } finally {
      server.close();
    }
    await expect(loadHost({ wasmUrl: 'http://127.0.0.1:1/' })).rejects.toMatchObject({ code: 'download-failed' });
  });

  it('refuses bytes that are not the module', async () => {
    const empty = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
    for (const bytes of [new Uint8Array(0), wasm.subarray(0, 1000), empty]) {
      await expect(loadHost({ wasm: bytes })).rejects.toMatchObject({ code: 'invalid-request' });
    }
  });
});

describe('memory', () => {
  const fill = (host: Host, bytes: number, value: number) => host.keep(new Uint8Array(bytes).fill(value));

  it('keeps blocks apart, aligned, and merges what is released', async () => {
    const host = await loadHost();
    const blocks = [100, 1, 16, 5000, 33].map((bytes, i) => ({
      bytes,
      value: i + 1,
      address: fill(host, bytes, i + 1),
    }));
    for (const { bytes, value, address } of blocks) {
      expect(address % 16).toBe(0);
      expect(host.bytes.subarray(address, address + bytes).every((byte) => byte === value)).toBe(true);
    }
    const [a, b, c, d, e] = blocks.map(({ address }) => address);
    for (const address of [b!, a!, c!]) host.release(address);
    expect(fill(host, 100 + 1 + 16, 9)).toBe(a); // three neighbours are one block again
    expect(host.bytes[d!]).toBe(4);
    for (const address of [e!, d!, a!]) host.release(address);
    expect(fill(host, 50, 1)).toBe(a); // nothing is left
  });

  it('ignores addresses that are no live block', async () => {
    const { exports } = await loadHost();
    const address = exports.allocate(64);
    expect([
      exports.release(address + 16),
      exports.release(0),
      exports.release(address),
      exports.release(address),
    ]).toEqual([0, 0, 1, 0]);
  });

  it('gives empty blocks addresses of their own', async () => {
    const host = await loadHost();
    const [a, b, c] = [fill(host, 0, 0), fill(host, 0, 0), fill(host, 20, 3)];
    expect(new Set([a, b, c]).size).toBe(3);
    for (const address of [a, b]) host.release(address);
    expect(host.bytes.subarray(c, c + 20).every((byte) => byte === 3)).toBe(true);
    expect(fill(host, 10, 1)).toBe(a);
  });

  it('reuses scratch after a reset and grows for large requests', async () => {
    const host = await loadHost();
    const first = host.scratch(100);
    expect(host.scratch(1)).toBe(first + 112);
    host.reset();
    expect(host.scratch(5 << 20)).toBe(first);
    host.bytes[first + (5 << 20) - 1] = 7;
    const grown = host.bytes.length;
    for (let i = 0; i < 1000; i++) {
      host.reset();
      host.scratch(5 << 20);
    }
    expect(host.bytes.length).toBe(grown);
  });

  it('refuses what cannot be had and stays usable', async () => {
    const host = await loadHost();
    for (const bytes of [2 ** 32 - 1, 2 ** 32, 2 ** 40]) {
      expect(() => host.scratch(bytes)).toThrow(expect.objectContaining({ code: 'out-of-memory' }));
    }
    expect(host.exports.allocate(2 ** 32 - 1)).toBe(0);
    expect(host.scratch(10)).toBeGreaterThan(0);
  });
});
