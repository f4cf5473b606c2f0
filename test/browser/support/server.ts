// A static server of the repository for browser tests: ranges like any file host, and a log of what was asked for.
// Answers can be made to fail, so that tests can cut the network in the middle of a download.
import { readFileSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';

export interface TestServer {
  url: string;
  /** Every request that was answered with content: path and bytes sent. */
  log: { path: string; start: number; bytes: number }[];
  /** Folders served under other paths, by path with slashes at both ends. */
  mounts: Record<string, string>;
  /** Return true to break the connection instead of answering. */
  fail: (path: string) => boolean;
  close(): Promise<void>;
}

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.png': 'image/png',
  '.wasm': 'application/wasm',
};

/** Serves `root`; `/blank.html` is an empty page. */
export async function serve(root: string, headers: Record<string, string> = {}): Promise<TestServer> {
  const server: TestServer = { url: '', log: [], mounts: {}, fail: () => false, close: async () => {} };
  const listener = createServer((request, response) => answer(server, root, headers, request, response));
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  server.url = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`;
  server.close = () =>
    new Promise((resolve) => {
      listener.closeAllConnections();
      listener.close(() => resolve());
    });
  return server;
}

function answer(
  server: TestServer,
  root: string,
  headers: Record<string, string>,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const path = decodeURIComponent(new URL(request.url ?? '/', 'http://server').pathname);
  if (server.fail(path)) {
    request.socket.destroy();
    return;
  }
  const blank = path === '/blank.html';
  const mount = Object.keys(server.mounts).find((prefix) => path.startsWith(prefix));
  const file = mount ? join(server.mounts[mount]!, path.slice(mount.length)) : join(root, path);
  if (!blank && !statSync(file, { throwIfNoEntry: false })?.isFile()) {
    response.writeHead(404, headers).end();
    return;
  }
  const content = blank
    ? Buffer.from('<!doctype html><html lang="en"><title>Test</title><body></body></html>')
    : readFileSync(file);
  const type = TYPES[blank ? '.html' : extname(file)] ?? 'application/octet-stream';
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  const start = range ? Number(range[1]) : 0;
  const end = range ? Math.min(Number(range[2]) + 1, content.length) : content.length;
  server.log.push({ path, start, bytes: end - start });
  response.writeHead(range ? 206 : 200, {
    'content-type': type,
    'content-length': end - start,
    'accept-ranges': 'bytes',
    // Versions are told apart by the time of the last change.
    etag: `"${content.length}-${blank ? 0 : statSync(file).mtimeMs}"`,
    ...(range && { 'content-range': `bytes ${start}-${end - 1}/${content.length}` }),
    ...headers,
  });
  response.end(content.subarray(start, end));
}
