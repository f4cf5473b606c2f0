// What a page keeps of a model's files, where no page is needed to see it: downloads end with their reader, and are asked for as the user wishes.
import { expect, it } from 'vitest';
import { cachedFiles } from '../../../sdk/src/cache/model-cache.ts';
import type { PieceStore } from '../../../sdk/src/cache/store.ts';

const PIECE = 4096;
const file = Uint8Array.from({ length: 3 * PIECE }, (_, i) => i * 7);

/** In memory. */
function memoryStore(): PieceStore {
  const kept = new Map<string, Uint8Array<ArrayBuffer>>();
  return {
    kind: 'opfs',
    get: async (folder, name) => kept.get(`${folder}/${name}`),
    put: async (folder, name, bytes) => void kept.set(`${folder}/${name}`, bytes),
    clear: async () => kept.clear(),
  };
}

/** A server of the file; from `from` on `late` answers instead. */
function server(from: number, late: (signal: AbortSignal) => Promise<Response>): typeof fetch {
  return async (_, init) => {
    const [first, last] = /bytes=(\d+)-(\d+)/.exec(new Headers(init!.headers).get('range')!)!.slice(1).map(Number) as [
      number,
      number,
    ];
    if (first >= from) return late(init!.signal!);
    const end = Math.min(last, file.length - 1);
    const headers = { etag: '"1"', 'content-range': `bytes ${first}-${end}/${file.length}` };
    return new Response(file.slice(first, end + 1), { status: 206, headers });
  };
}

const opened = async (fetch: typeof globalThis.fetch, attempts?: number) => {
  const request = attempts === undefined ? {} : { attempts };
  const files = cachedFiles('https://models.example/', { fetch, store: memoryStore(), pieceBytes: PIECE, request });
  return (await files.open('model.safetensors'))!;
};

it('ends what is on its way, and its further attempts, with the reader', async () => {
  let asked = 0;
  const ends: (() => void)[] = [];
  let arrive = () => {};
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  const late = (signal: AbortSignal) => {
    asked++;
    arrive();
    return new Promise<Response>((_, reject) => {
      ends.push(() => reject(new TypeError('Failed to fetch')));
      signal.addEventListener('abort', () => reject(signal.reason));
    });
  };
  const source = await opened(server(PIECE, late));
  expect(await source.read(0, 8)).toEqual(file.slice(0, 8));
  const reading = source.read(PIECE, 2 * PIECE);
  const told = expect(reading).rejects.toMatchObject({ code: 'aborted' });
  await arrived;
  await source.close();
  await told;
  for (const end of ends) end();
  expect(asked).toBe(1);
});

it('asks as often as the user wishes', async () => {
  let asked = 0;
  const source = await opened(
    server(PIECE, async () => {
      asked++;
      throw new TypeError('Failed to fetch');
    }),
    1,
  );
  await expect(source.read(PIECE, 2 * PIECE)).rejects.toMatchObject({ code: 'download-failed' });
  expect(asked).toBe(1);
});
