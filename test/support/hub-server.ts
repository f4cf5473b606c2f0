// A server that behaves as the Hugging Face hub does: listings, commits, gates, and redirects to storage on another host.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

export interface HubServer {
  endpoint: string;
  commit: string;
  /** Files of `owner/model`; large ones (over 1 kB) are kept in storage, as with LFS. */
  files: Map<string, Buffer>;
  /** What was asked: host, path, range, authorization. */
  log: { host: 'hub' | 'storage'; path: string; range: string | undefined; token: string | undefined }[];
  /** Takes over an answer when it returns true. */
  fault: (request: IncomingMessage, response: ServerResponse, host: 'hub' | 'storage') => boolean;
  /** When set, files need this token. */
  gate: string | undefined;
  close(): void;
}

/** Pages of other origins may read what the hub answers, and send it a token. */
const CORS = {
  'access-control-allow-origin': '*',
  'access-control-allow-headers': 'authorization, range, if-range, accept-encoding',
  'access-control-expose-headers':
    'x-repo-commit, x-error-code, x-error-message, x-linked-etag, x-linked-size, etag, accept-ranges, content-range',
};

/** The contents of a folder by path, as {@link HubServer.files} takes them. */
export function filesBelow(folder: string): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(path.slice(folder.length + 1), readFileSync(path));
  }
  return files;
}

export async function hubServer(files: Map<string, Buffer>): Promise<HubServer> {
  const listen = async (handler: (request: IncomingMessage, response: ServerResponse) => void) => {
    const server = createServer((request, response) => {
      for (const [name, value] of Object.entries(CORS)) response.setHeader(name, value);
      if (request.method === 'OPTIONS') response.writeHead(204).end();
      else handler(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return { server, origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  };
  const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
  const servers: Server[] = [];
  const hub: HubServer = {
    endpoint: '',
    commit: 'c0ffee'.padEnd(40, '0'),
    files,
    log: [],
    fault: () => false,
    gate: undefined,
    close() {
      for (const server of servers) {
        server.closeAllConnections();
        server.close();
      }
    },
  };
  const note = (host: 'hub' | 'storage', { url, headers }: IncomingMessage) =>
    hub.log.push({ host, path: url!, range: headers.range, token: headers.authorization });
  const refuse = (response: ServerResponse, status: number, code: string) =>
    void response.writeHead(status, { 'x-error-code': code, 'x-error-message': code }).end();

  const send = (request: IncomingMessage, response: ServerResponse, bytes: Buffer, etag: string) => {
    const [, first, last] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
    if (first === undefined) return void response.writeHead(200, { etag }).end(bytes);
    const start = Number(first);
    const end = Math.min(Number(last) + 1, bytes.length);
    if (start >= bytes.length) {
      return void response.writeHead(416, { etag, 'content-range': `bytes */${bytes.length}` }).end();
    }
    response.writeHead(206, { etag, 'content-range': `bytes ${start}-${end - 1}/${bytes.length}` });
    response.end(bytes.subarray(start, end));
  };

  const storage = await listen((request, response) => {
    note('storage', request);
    if (hub.fault(request, response, 'storage')) return;
    const hash = request.url!.split('/')[1]!.split('?')[0]!;
    const bytes = [...hub.files.values()].find((content) => sha256(content) === hash);
    if (!bytes || !request.url!.includes('signature=')) return refuse(response, 403, 'Expired');
    send(request, response, bytes, `"storage-${hash}"`);
  });
  const front = await listen((request, response) => {
    note('hub', request);
    if (hub.fault(request, response, 'hub')) return;
    const path = decodeURIComponent(request.url!.split('?')[0]!);
    const listing = /^\/api\/models\/owner\/model\/revision\/(.+)$/.exec(path);
    if (listing) {
      if (listing[1] !== 'main' && listing[1] !== hub.commit) return refuse(response, 404, 'RevisionNotFound');
      const siblings = [...hub.files].map(([rfilename, bytes]) => ({
        rfilename,
        size: bytes.length,
        ...(bytes.length > 1000 && { lfs: { sha256: sha256(bytes), size: bytes.length } }),
      }));
      return void response.end(JSON.stringify({ id: 'owner/model', sha: hub.commit, siblings }));
    }
    const file = /^\/owner\/model\/resolve\/([^/]+)\/(.+)$/.exec(path);
    // The hub answers so for what is not there, and for what the asker may not know of.
    if (!file) return refuse(response, 401, 'RepoNotFound');
    if (hub.gate !== undefined && request.headers.authorization !== `Bearer ${hub.gate}`) {
      return refuse(response, request.headers.authorization ? 403 : 401, 'GatedRepo');
    }
    const bytes = hub.files.get(file[2]!);
    if (!bytes) return refuse(response, 404, 'EntryNotFound');
    const hash = sha256(bytes);
    if (bytes.length <= 1000) return send(request, response, bytes, `"${hash.slice(0, 40)}"`);
    response.writeHead(302, {
      location: `${storage.origin}/${hash}?signature=1`,
      'x-repo-commit': hub.commit,
      'x-linked-etag': `"${hash}"`,
      'x-linked-size': bytes.length,
    });
    response.end();
  });
  servers.push(storage.server, front.server);
  hub.endpoint = front.origin;
  return hub;
}
