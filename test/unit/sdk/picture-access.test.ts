// Which hosts pictures are fetched from: what the app's policy refuses is never asked, whether a request or a redirect names it.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AccessPolicy } from '../../../runtime/src/net/access.ts';
import { decodeImage } from '../../../sdk/src/image/node.ts';
import { Kontext } from '../../../sdk/src/node.ts';
import { pipelineModel } from '../../support/pipeline-model.ts';

const png = readFileSync(new URL('../../../examples/demo-model/inputs/apple-on-red.png', import.meta.url));
const asked: string[] = [];
const server = createServer((request, response) => {
  asked.push(`${request.headers.host!.split(':')[0]}${request.url}`);
  const [, to] = /^\/to\/(.*)$/.exec(request.url!) ?? [];
  if (to) response.writeHead(302, { location: decodeURIComponent(to) }).end();
  else response.writeHead(200, { 'content-type': 'image/png', 'content-length': png.length }).end(png);
});
let port: number;
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, resolve));
  port = (server.address() as AddressInfo).port;
});
afterAll(() => server.close());

const url = (host: string, path = '/a.png') => `http://${host}:${port}${path}`;
const fetched = async (address: string, access?: AccessPolicy) => {
  asked.length = 0;
  const { width } = await decodeImage(address, 'input image', undefined, 'opaque', access);
  return width;
};

describe('pictures by URL', () => {
  it('come from the hosts that are listed, with or without a port', async () => {
    expect(await fetched(url('127.0.0.1'))).toBe(64);
    for (const host of ['127.0.0.1', `127.0.0.1:${port}`]) {
      expect(await fetched(url('127.0.0.1'), { allowHosts: [host] })).toBe(64);
    }
  });

  it.each<[string, AccessPolicy, RegExp]>([
    ['another host', { allowHosts: ['pictures.example'] }, /allowHosts/],
    ['another port', { allowHosts: ['127.0.0.1:1'] }, /allowHosts/],
    ['no host at all', { allowHosts: [] }, /allowHosts/],
    ['a private address', { privateAddresses: 'refuse' }, /private/],
    ['a listed private address', { allowHosts: ['127.0.0.1'], privateAddresses: 'refuse' }, /private/],
  ])('are refused from %s, which is not asked', async (_, access, message) => {
    const refusal = { code: 'download-failed', message: expect.stringMatching(message), details: { refused: true } };
    await expect(fetched(url('127.0.0.1'), access)).rejects.toMatchObject(refusal);
    expect(asked).toEqual([]);
  });

  it('are not fetched from where a redirect leads, unless that is listed too', async () => {
    const path = `/to/${encodeURIComponent(url('localhost', '/b.png'))}`;
    const access = { allowHosts: ['127.0.0.1'] };
    await expect(fetched(url('127.0.0.1', path), access)).rejects.toMatchObject({ code: 'download-failed' });
    expect(asked).toEqual([`127.0.0.1${path}`]);
    expect(await fetched(url('127.0.0.1', path), { allowHosts: ['127.0.0.1', 'localhost'] })).toBe(64);
    expect(asked).toEqual([`127.0.0.1${path}`, 'localhost/b.png']);
  });

  it('of a request are held to the policy of the engine, each of them', async () => {
    await using kontext = await Kontext.load(pipelineModel(), { access: { allowHosts: ['127.0.0.1'] } });
    const [allowed, other] = [url('127.0.0.1'), url('localhost')];
    asked.length = 0;
    for (const pictures of [
      { image: other },
      { image: allowed, references: [other] },
      { image: allowed, mask: other },
    ]) {
      await expect(kontext.edit({ prompt: 'x', ...pictures })).rejects.toMatchObject({
        code: 'download-failed',
        message: expect.stringContaining('allowHosts'),
      });
    }
    expect(asked.filter((address) => address.startsWith('localhost'))).toEqual([]);
  });
});
