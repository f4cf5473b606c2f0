// The official openai client, unchanged, against the server on a real port.
import OpenAI, { toFile } from 'openai';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createServer, type KontextServer, type ListeningServer, listen, makeKey } from '../../sdk/src/server/index.ts';
import { deviceLost, fakeEngine } from './support/fake-engine.ts';

const seen: { prompt: string; image: boolean; mask: boolean }[] = [];
let losses = 0;
const { key, entry } = makeKey('tester');
let server: KontextServer;
let port: ListeningServer;
let client: OpenAI;
let picture: Uint8Array;

beforeAll(async () => {
  const engine = fakeEngine({
    onRequest(request) {
      if (losses-- > 0) throw deviceLost();
      seen.push({ prompt: request.prompt, image: 'image' in request, mask: 'mask' in request });
    },
  });
  server = createServer({ models: [{ name: 'flux-kontext', engine, defaults: { steps: 4 } }], keys: [entry] });
  port = await listen(server.fetch, { port: 0 });
  client = new OpenAI({ baseURL: `${port.url}/v1`, apiKey: key, maxRetries: 0 });
  picture = await sharp({ create: { width: 64, height: 48, channels: 3, background: '#a00' } })
    .png()
    .toBuffer();
});

afterAll(async () => {
  await port.stop();
  await server.close();
});

it('generates', async () => {
  const { data, usage, created } = await client.images.generate({ prompt: 'a fox', n: 2, size: '1024x1024' });
  expect(data).toHaveLength(2);
  const { width, height, format } = await sharp(Buffer.from(data![0]!.b64_json!, 'base64')).metadata();
  expect([width, height, format]).toEqual([1024, 1024, 'png']);
  expect(usage).toMatchObject({ input_tokens: 512, output_tokens: 2 * 64 * 64, total_tokens: 512 + 2 * 64 * 64 });
  expect(Math.abs(created - Date.now() / 1000)).toBeLessThan(5);
});

it('edits a file, with a seed of ours', async () => {
  const image = await toFile(picture, 'a.png', { type: 'image/png' });
  const answer = await client.images.edit({
    model: 'flux-kontext',
    image,
    prompt: 'make it night',
    output_format: 'jpeg',
    // @ts-expect-error an option of this server
    kontext: { seed: 7, guidance: 3 },
  });
  expect(answer.output_format).toBe('jpeg');
  expect((answer as unknown as { kontext: { seed: string } }).kontext.seed).toBe('7');
  expect((await sharp(Buffer.from(answer.data![0]!.b64_json!, 'base64')).metadata()).format).toBe('jpeg');
  expect(seen.at(-1)).toEqual({ prompt: 'make it night', image: true, mask: false });
});

it('edits several files with a mask', async () => {
  const image = [
    await toFile(picture, 'a.png', { type: 'image/png' }),
    await toFile(picture, 'b.png', { type: 'image/png' }),
  ];
  const hole = await sharp({ create: { width: 64, height: 48, channels: 4, background: '#0000' } })
    .png()
    .toBuffer();
  await expect(
    client.images.edit({ image, mask: await toFile(hole, 'm.png', { type: 'image/png' }), prompt: 'x' }),
  ).resolves.toBeDefined();
  expect(seen.at(-1)!.mask).toBe(true);
});

it('streams partial pictures, then the picture', async () => {
  const stream = await client.images.generate({ prompt: 'a fox', stream: true, partial_images: 2, size: 'auto' });
  const types: string[] = [];
  for await (const event of stream) {
    if ((event.type as string).startsWith('kontext.')) continue;
    types.push(event.type);
    expect(Buffer.from(event.b64_json, 'base64').length).toBeGreaterThan(50);
  }
  expect(types).toEqual([
    'image_generation.partial_image',
    'image_generation.partial_image',
    'image_generation.completed',
  ]);
  const edit = await client.images.edit({
    image: await toFile(picture, 'a.png', { type: 'image/png' }),
    prompt: 'x',
    stream: true,
    partial_images: 1,
  });
  const edited: string[] = [];
  for await (const event of edit) if (!(event.type as string).startsWith('kontext.')) edited.push(event.type);
  expect(edited).toEqual(['image_edit.partial_image', 'image_edit.completed']);
});

it('gives links where asked', async () => {
  const { data } = await client.images.generate({ prompt: 'a fox', response_format: 'url', output_format: 'webp' });
  const file = await fetch(new URL(data![0]!.url!, port.url));
  expect(file.headers.get('content-type')).toBe('image/webp');
  expect((await sharp(await file.arrayBuffer()).metadata()).format).toBe('webp');
});

it('lists its models', async () => {
  const { data } = await client.models.list();
  expect(data.map(({ id }) => id)).toEqual(['flux-kontext']);
});

it.each([
  [{ prompt: 'x', n: 11 }, 400, 'n'],
  [{ prompt: 'x', size: '1000x1000' }, 400, null],
  [{ prompt: 'x', model: 'dall-e-3' }, 404, 'model'],
  [{ prompt: '' }, 400, 'prompt'],
  [{ prompt: 'x', style: 'vivid' }, 400, 'style'],
  [{ prompt: 'x', background: 'transparent' }, 400, 'background'],
  [{ prompt: 'x', partial_images: 1 }, 400, 'partial_images'],
  [{ prompt: 'x', kontext: { guidanse: 2 } }, 400, 'kontext.guidanse'],
  [{ prompt: 'x', kontext: { steps: 0 } }, 400, 'kontext.steps'],
])('refuses %j in the shape the client knows', async (body, status, param) => {
  const error = await client.images.generate(body as OpenAI.ImageGenerateParams).then(
    () => undefined,
    (reason: InstanceType<typeof OpenAI.APIError>) => reason,
  );
  expect(error).toBeInstanceOf(OpenAI.APIError);
  expect([error!.status, error!.param]).toEqual([status, param]);
  expect(error!.message.length).toBeGreaterThan(15);
});

it('refuses other keys', async () => {
  const other = new OpenAI({ baseURL: `${port.url}/v1`, apiKey: 'kx-wrong', maxRetries: 0 });
  await expect(other.images.generate({ prompt: 'x' })).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
});

it('runs a job again after the device was lost, to the same picture', async () => {
  losses = 2;
  const { data } = await client.images.generate({ prompt: 'a fox' });
  expect(data).toHaveLength(1);
  losses = 3;
  await expect(client.images.generate({ prompt: 'a fox' })).rejects.toMatchObject({ status: 503, code: 'device-lost' });
  losses = 0;
});
