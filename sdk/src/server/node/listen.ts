// The server on a port of Node, with the time limits that keep slow and silent clients from holding it.
// Waiting for a long edit is not silence: the limits are on headers, bodies and unread answers.
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';

/** Options of {@link listen}. */
export interface ListenOptions {
  /** Default 8080; 0 picks a free one. */
  port?: number;
  /** Address to bind. Default 127.0.0.1. */
  host?: string;
  /** Longest wait for a request's headers, in milliseconds. Default 10,000. */
  headersTimeoutMs?: number;
  /** Longest wait for the whole request, body included. Default 60,000. */
  requestTimeoutMs?: number;
  /** Longest time in which a client reads nothing of its answer. Default 60,000. */
  answerTimeoutMs?: number;
  /** Connections at once; further ones are closed. Default 4096. */
  maxConnections?: number;
}

/** An open port. */
export interface ListeningServer {
  /** Of the address bound. */
  url: string;
  /** Takes no new connections; resolves when those open have ended. */
  stop(): Promise<void>;
}

/** @throws what the system says: the address is in use, or may not be bound */
export async function listen(
  fetch: (request: Request) => Promise<Response>,
  options: ListenOptions = {},
): Promise<ListeningServer> {
  const answerTimeoutMs = options.answerTimeoutMs ?? 60_000;
  const listener = getRequestListener((request) => fetch(request), { overrideGlobalObjects: false });
  const server = createHttpServer(
    {
      headersTimeout: options.headersTimeoutMs ?? 10_000,
      requestTimeout: options.requestTimeoutMs ?? 60_000,
      connectionsCheckingInterval: 1_000,
      maxHeaderSize: 16_384,
    },
    (request: IncomingMessage, response: ServerResponse) => {
      limitAnswer(response, answerTimeoutMs);
      // A request line such as `GET // HTTP/1.1` is no URL.
      if (!URL.canParse(request.url ?? '', 'http://host')) {
        response.writeHead(400).end();
        return;
      }
      void listener(request, response);
    },
  );
  server.maxConnections = options.maxConnections ?? 4096;
  server.keepAliveTimeout = 5_000;
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n');
    else socket.destroy();
  });
  const host = options.host ?? '127.0.0.1';
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 8080, host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
      }),
  };
}

/** Starts the clock on an answer when its first byte is written; before, the client waits for us. */
function limitAnswer(response: ServerResponse, timeoutMs: number): void {
  const { writeHead } = response;
  response.writeHead = function (this: ServerResponse, ...args: unknown[]) {
    response.setTimeout(timeoutMs, () => response.destroy());
    return Reflect.apply(writeHead, this, args) as ServerResponse;
  } as typeof writeHead;
}
