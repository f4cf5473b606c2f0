// The examples for Node as a reader would start them: scripts and a web service, on the demo model.
// Also what a client of the service gets wrong, and that it ends when told to.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, expect, it } from 'vitest';
import { decodeImage } from '../../sdk/src/image/node.ts';

const root = new URL('../..', import.meta.url).pathname;
const TSX = join(root, 'node_modules/.bin/tsx');
const INPUT = join(root, 'examples/demo-model/inputs/apple-on-red.png');
const folder = mkdtempSync(join(tmpdir(), 'kontext-examples-'));
const options = { timeout: 600_000 };
afterAll(() => rmSync(folder, { recursive: true }));

it('node-script writes a picture', options, async () => {
  const out = join(folder, 'out.png');
  const args = ['examples/node-script/edit.ts', INPUT, 'make the background blue', out];
  const { stdout } = await promisify(execFile)(TSX, args, { cwd: root });
  expect(stdout).toMatch(/step 1 of \d+, \d+ ms/);
  expect(await decodeImage(out, 'x')).toMatchObject({ width: 64, height: 64 });
});

it('ahead-of-time compiles a bundle and edits from it', options, async () => {
  const out = join(folder, 'ahead.png');
  const { stdout } = await promisify(execFile)(TSX, ['examples/ahead-of-time/edit.ts', INPUT, out], { cwd: root });
  expect(stdout).toMatch(/10 programs for .*[\s\S]*of which .* s loading/);
  expect(await decodeImage(out, 'x')).toMatchObject({ width: 64, height: 64 });
});

/** Request lines, or what stands in their place, with the status of the answer; 0 where a closed connection is one. */
const HOSTILE: [line: string, status: number][] = [
  ['GET //', 400],
  ['POST //[ HTTP/1.1', 400],
  ['POST http:///edit HTTP/1.1', 404],
  ['POST http://[::1/edit HTTP/1.1', 400],
  ['POST /edit?prompt=%ff%fe&seed=x HTTP/1.1', 400],
  ['POST /edit?seed=-1&steps=1e309&prompt=x HTTP/1.1', 400],
  [`POST /edit?prompt=x&steps=${'9'.repeat(4000)} HTTP/1.1`, 400],
  [`POST /${'../'.repeat(100)}etc/passwd HTTP/1.1`, 404],
  ['POST /%00%0d%0a HTTP/1.1', 404],
  ['POST __proto__ HTTP/1.1', 400],
  ['OPTIONS * HTTP/1.1', 404],
  ['CONNECT 169.254.169.254:80 HTTP/1.1', 0],
  [`GET /${'x'.repeat(100_000)} HTTP/1.1`, 431],
  ['\0\0\0', 400],
  ['GET / HTTP/9.9', 400],
  ['PRI * HTTP/2.0', 400],
];

/** Status of the answer to a request that begins with `line`, without a body. */
function answerTo(port: number, line: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`${line}\r\nHost: x\r\nConnection: close\r\n\r\n`));
    let text = '';
    socket.on('data', (chunk) => (text += chunk));
    socket.on('close', () => resolve(Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0)));
    socket.on('error', (error: NodeJS.ErrnoException) => error.code !== 'ECONNRESET' && reject(error));
    socket.setTimeout(20_000, () => reject(new Error(`no answer to ${line.slice(0, 60)}`)));
  });
}

it('http-server edits what is posted', options, async () => {
  const server: ChildProcess = spawn(process.execPath, ['--import', 'tsx', 'examples/http-server/server.ts', '0'], {
    cwd: root,
  });
  const exited = new Promise((resolve) => server.on('exit', resolve));
  try {
    const url = await new Promise<string>((resolve, reject) => {
      let text = '';
      const listen = (chunk: Buffer) => {
        text += chunk;
        const [, found] = /listening on (\S+)/.exec(text) ?? [];
        if (found) resolve(found);
      };
      server.stdout!.on('data', listen);
      server.stderr!.on('data', listen);
      server.on('exit', () => reject(new Error(text)));
    });
    const post = (query: string) =>
      fetch(`${url}?${query}`, { method: 'POST', body: new Uint8Array(readFileSync(INPUT)) });
    const right = await post('prompt=remove+the+apple&seed=3&steps=2');
    expect([right.status, right.headers.get('x-seed')]).toEqual([200, '3']);
    expect(await decodeImage(await right.arrayBuffer(), 'x')).toMatchObject({ width: 64, height: 64 });
    const empty = await post('prompt=');
    expect([empty.status, (await empty.json()).code]).toEqual([400, 'invalid-request']);
    expect((await fetch(url)).status).toBe(404);
    const { port } = new URL(url);
    for (const [line, status] of HOSTILE) expect([line, await answerTo(Number(port), line)]).toEqual([line, status]);
    expect((await post('prompt=remove+the+apple&seed=3&steps=2')).status).toBe(200);
  } finally {
    server.kill('SIGINT');
  }
  expect(await exited).toBe(0);
});
