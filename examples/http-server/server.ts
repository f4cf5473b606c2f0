// Editing as a web service: POST a picture to /edit?prompt=…&seed=…, get a PNG back.
// Requests queue by themselves; a client that hangs up cancels its edit. Run: npx tsx examples/http-server/server.ts [PORT]
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { demoModel, encodeImage, Kontext, KontextError } from 'kontext-webgpu';

const MAX_BODY_BYTES = 20e6;

/** What a client did wrong is a 400, what the machine cannot do a 503, the rest a 500. */
const STATUS: Record<string, number> = {
  'invalid-request': 400,
  'image-invalid': 400,
  'out-of-memory': 503,
  'device-lost': 503,
  closed: 503,
};

const kontext = await Kontext.load(process.env.KONTEXT_MODEL ?? demoModel(), { memory: 'resident' });
const server = createServer((request, response) => {
  handle(request, response).catch((error: unknown) => {
    const known = error instanceof KontextError;
    if (!known) console.error(error);
    const body = known ? error.toJSON() : { code: 'internal', message: 'The server failed.' };
    if (response.headersSent || response.destroyed) return;
    response.writeHead(known ? (STATUS[error.code] ?? 500) : 500, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  });
});

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  // A request line may hold anything: also what is no address.
  const url = URL.parse(request.url ?? '/', 'http://localhost');
  if (!url) throw new KontextError('invalid-request', 'The address cannot be read.');
  if (request.method !== 'POST' || url.pathname !== '/edit') {
    response.writeHead(404).end('POST a picture to /edit?prompt=…\n');
    return;
  }
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  const seed = url.searchParams.get('seed');
  const steps = url.searchParams.get('steps');
  const { image, seed: used } = await kontext.edit({
    image: await readBody(request),
    prompt: url.searchParams.get('prompt') ?? '',
    ...(seed !== null && { seed: Number(seed) }),
    ...(steps !== null && { steps: Number(steps) }),
    signal: gone.signal,
  });
  const png = await encodeImage(image, 'png');
  response
    .writeHead(200, { 'content-type': 'image/png', 'content-length': png.length, 'x-seed': String(used) })
    .end(png);
}

async function readBody(request: IncomingMessage): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES)
      throw new KontextError('invalid-request', `The picture is above ${MAX_BODY_BYTES} bytes.`);
    chunks.push(chunk);
  }
  return new Uint8Array(Buffer.concat(chunks));
}

server.listen(Number(process.argv[2] ?? 8080), () => {
  console.log(`listening on http://localhost:${(server.address() as AddressInfo).port}/edit`);
});

process.once('SIGINT', () => {
  server.close();
  void kontext.close().then(() => process.exit(0));
});
