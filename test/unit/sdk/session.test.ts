// Sessions and streams over an engine that adds numbers instead of editing: order, undo, forks, replay, cancelling.
import { describe, expect, it } from 'vitest';
import { abortedError } from '../../../runtime/src/errors.ts';
import { writePngChunk } from '../../../sdk/src/image/metadata/png-text.ts';
import { decodeImage } from '../../../sdk/src/image/node.ts';
import type { PixelImage } from '../../../sdk/src/image/pixels.ts';
import { deflate, encodePng } from '../../../sdk/src/image/png-write.ts';
import { Session } from '../../../sdk/src/kontext/session.ts';
import { eventStream } from '../../../sdk/src/kontext/stream.ts';
import type { EditRequest, EditResult, ImageInput, StreamEvent } from '../../../sdk/src/kontext/types.ts';

const picture = (value: number): PixelImage => ({ width: 1, height: 1, data: Uint8ClampedArray.of(value, 0, 0, 255) });
const red = (image: unknown) => (image as PixelImage).data[0];

/** The prompt is a number; the result is the input's red plus it plus the seed. */
const engine = {
  requests: [] as EditRequest[],
  async edit(request: EditRequest): Promise<EditResult> {
    this.requests.push(request);
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (request.signal?.aborted) throw abortedError(request.signal);
    const seed = request.seed ?? 5;
    const image = picture(red(request.image)! + Number(request.prompt) + Number(seed));
    request.onProgress?.({ type: 'step', image: 0, step: 1, steps: 1, stepMs: 1, progress: 0.5 });
    request.onProgress?.({ type: 'done', progress: 1 });
    return { image, images: [image], seed, options: {} } as unknown as EditResult;
  },
};

const decode = async (input: ImageInput) =>
  typeof input === 'string' ? picture(Number(input)) : (input as PixelImage);

describe('Session', () => {
  it('comes back from its export bit for bit, undone turns and pictures in options too', async () => {
    const session = new Session(engine, picture(100), decode);
    const floats = Float32Array.of(1.5, -0.1, 3e-9);
    await session.edit('10', { seed: 2n ** 60n, mask: picture(7), references: ['8', picture(9)], latents: floats });
    await session.edit('20', { seed: 2, anchor: true, variants: 3, choose: () => 0 });
    session.undo();
    const text = await session.export();
    const again = await new Session(engine, '0', decode).import(text);
    expect([red(await again.image), again.canRedo]).toEqual([red(session.current), true]);
    const [turn] = again.history;
    expect(turn!.options).toEqual({
      seed: 2n ** 60n,
      mask: picture(7),
      references: [picture(8), picture(9)],
      latents: floats,
    });
    again.redo();
    expect(again.history[1]!.options).toEqual({ seed: 2, anchor: true });
    session.redo();
    expect(again.history.map(({ image }) => image)).toEqual(session.history.map(({ image }) => image));
    for (const wrong of [
      '',
      '{}',
      '[1]',
      text.replace('"version":2', '"version":9'),
      text.replace('"pixels"', '"pixles"'),
      text.replace('"parent":1', '"parent":2'),
      text.replace('"position":1', '"position":3'),
      text.replace('"width":1', '"width":2'),
      text.replace('"width":1,"height":1', '"width":1e9,"height":1e9'),
    ]) {
      await expect(session.import(wrong)).rejects.toMatchObject({ code: 'invalid-request' });
    }
  });

  it('is a tree: what was undone stays as a branch, and everything is reached again', async () => {
    const session = new Session(engine, picture(0), decode);
    const edit = (prompt: string) => session.edit(prompt, { seed: 0 });
    await edit('1');
    await edit('10');
    session.undo();
    await edit('20');
    await edit('5');
    const prompts = () => session.history.map(({ prompt }) => prompt).join('+');
    expect([prompts(), session.position, red(session.current)]).toEqual(['1+20+5', 4, 26]);
    expect(session.turns.map(({ id, parent }) => [id, parent])).toEqual([
      [1, 0],
      [2, 1],
      [3, 1],
      [4, 3],
    ]);
    expect(session.branches(1).map(({ id }) => id)).toEqual([2, 3]);
    expect(session.branches()).toEqual([]);
    expect([red(session.goTo(2)), prompts()]).toEqual([11, '1+10']);
    session.undo();
    // The branch seen last.
    expect(red(session.redo())).toBe(11);
    session.goTo(3);
    session.goTo(1);
    expect([red(session.redo()), red(session.redo()), session.canRedo]).toEqual([21, 26, false]);
    expect([red(session.goTo(0)), prompts(), session.canUndo]).toEqual([0, '', false]);
    for (const none of [5, -1, 1.5, Number.NaN, '1' as never]) {
      expect(() => session.goTo(none)).toThrow(/no turn/);
      await expect(session.thumbnail(none)).rejects.toMatchObject({ code: 'invalid-request' });
    }
    session.goTo(2);
    const [imported, replayed] = [await session.import(await session.export()), await session.replay()];
    for (const again of [imported, replayed, session.fork()]) {
      expect(again.turns).toEqual(session.turns);
      expect([again.position, red(again.current)]).toEqual([2, 11]);
    }
    // Where somebody goes while a turn is made does not change what it was made of.
    await session.edit('3', { seed: 0, onProgress: () => void session.goTo(4) });
    expect(session.turns.at(-1)).toMatchObject({ id: 5, parent: 2 });
    expect([red(session.current), session.position]).toEqual([14, 5]);
  });

  it('travels inside a PNG of the current picture', async () => {
    const session = new Session(engine, picture(9), decode);
    await session.edit('30', { seed: 1, mask: picture(255) });
    await session.edit('50', { seed: 2 });
    session.undo();
    const png = await session.export('png');
    expect((await decodeImage(png)).data).toEqual((session.current as PixelImage).data);
    for (const file of [png, png.buffer, new Blob([png])]) {
      const again = await session.import(file);
      expect([again.turns, again.position]).toEqual([session.turns, 1]);
      expect(again.turns[0]!.options.mask).toEqual(picture(255));
    }
    expect(await session.import(new TextEncoder().encode(await session.export()))).toMatchObject({ position: 1 });
    await expect(session.export('gif' as never)).rejects.toMatchObject({ code: 'invalid-request' });
    const plain = await encodePng(picture(1));
    // A pixel that unpacks to a million bytes is given up before they are held.
    const text = await session.export();
    const large = Buffer.from(await deflate(new Uint8Array(2 ** 20))).toString('base64');
    const bomb = text.replace(/"data":"[^"]*"/, `"data":"${large}"`);
    await expect(session.import(bomb)).rejects.toThrow(/unpacks to more than it says/);
    for (const wrong of [plain, writePngChunk(plain, 'kxSs', Uint8Array.of(1, 2)), new Uint8Array(3), null as never]) {
      await expect(session.import(wrong)).rejects.toMatchObject({ code: 'invalid-request' });
    }
  });

  it('has small pictures of every turn, made once', async () => {
    const wide = { width: 300, height: 150, data: new Uint8ClampedArray(300 * 150 * 4).fill(255) };
    for (let i = 0; i < 300 * 150; i++) wide.data[4 * i] = i % 300 < 150 ? 0 : 200;
    const session = new Session(engine, wide, decode);
    const small = await decodeImage(await session.thumbnail());
    expect([small.width, small.height, small.data[0], small.data[4 * 127]]).toEqual([128, 64, 0, 200]);
    expect(await session.thumbnail(0)).toBe(await session.thumbnail(0));
    await session.edit('1', { seed: 0 });
    expect((await decodeImage(await session.thumbnail(1))).data).toEqual((session.current as PixelImage).data);
  });

  it('shows the first picture again where a turn is anchored', async () => {
    const first = picture(100);
    const session = new Session(engine, first, decode);
    await session.edit('10', { anchor: true });
    expect(engine.requests.at(-1)!.references).toBeUndefined();
    await session.edit('20', { anchor: true, references: ['3'] });
    expect(engine.requests.at(-1)).toMatchObject({ references: [first, '3'] });
    expect(engine.requests.at(-1)).not.toHaveProperty('anchor');
  });

  it('gives the pixels of the current picture through undo and redo, the first one decoded once', async () => {
    let decoded = 0;
    const session = new Session(engine, '100', (input) => {
      decoded++;
      return decoded === 1 ? Promise.reject(new Error('offline')) : decode(input);
    });
    await expect(session.image).rejects.toThrow('offline');
    expect(red(await session.image)).toBe(100);
    await session.edit('10', { seed: 1 }).catch(() => {});
    session.undo();
    expect(red(await session.image)).toBe(100);
    expect(decoded).toBe(2);
    const fork = new Session(engine, picture(1), decode);
    await fork.edit('10', { seed: 1 });
    expect(red(await fork.image)).toBe(12);
    expect(red(await fork.fork().image)).toBe(12);
    fork.undo();
    expect(red(await fork.image)).toBe(1);
    fork.redo();
    expect(red(await fork.image)).toBe(12);
  });

  it('edits the result of the edit before, and undoes', async () => {
    const session = new Session(engine, picture(0), decode);
    expect([session.canUndo, session.canRedo]).toEqual([false, false]);
    await session.edit('10', { seed: 1 });
    await session.edit('20', { seed: 2 });
    expect(red(session.current)).toBe(33);
    expect(red(session.undo())).toBe(11);
    expect(session.history.map((turn) => turn.prompt)).toEqual(['10']);
    expect(red(session.redo())).toBe(33);
    session.undo();
    session.undo();
    expect(red(session.undo())).toBe(0);
    await session.edit('7', { seed: 0 });
    expect([session.canRedo, red(session.current)]).toEqual([false, 7]);
    expect(session.turns).toHaveLength(3);
  });

  it('keeps the seed that was drawn, so that a replay gives the same', async () => {
    const session = new Session(engine, picture(0), decode);
    await session.edit('1', { steps: 3, onProgress: () => {} });
    await session.edit('2');
    const again = await session.replay();
    expect(again.history.map((turn) => red(turn.image))).toEqual(session.history.map((turn) => red(turn.image)));
    expect(engine.requests.at(-2)).toMatchObject({ seed: 5, steps: 3 });
    expect(session.history[0]!.options).toEqual({ steps: 3, seed: 5 });
  });

  it('runs turns in order, forks apart, and forgets a failed turn', async () => {
    const session = new Session(engine, picture(0), decode);
    await Promise.all([session.edit('1', { seed: 0 }), session.edit('2', { seed: 0 })]);
    expect(red(session.current)).toBe(3);
    const fork = session.fork();
    await fork.edit('4', { seed: 0 });
    expect([red(session.current), red(fork.current)]).toEqual([3, 7]);
    await expect(session.edit('8', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' });
    await expect(session.edit('8', { images: 2 })).rejects.toThrow(/one picture/);
    expect([red(session.current), session.history.length]).toEqual([3, 2]);
  });
});

describe('eventStream', () => {
  const submit = (request: EditRequest) => engine.edit(request);

  it('yields progress and then the result', async () => {
    const events: StreamEvent[] = [];
    const seen: string[] = [];
    const request = { image: picture(1), prompt: '2', onProgress: ({ type }: { type: string }) => seen.push(type) };
    for await (const event of eventStream(request, submit)) events.push(event);
    expect(events.map(({ type }) => type)).toEqual(['step', 'done', 'result']);
    expect(seen).toEqual(['step', 'done']);
    expect(events.at(-1)).toMatchObject({ result: { seed: 5 } });
  });

  it('throws what the request rejects with', async () => {
    const events = eventStream({ image: picture(1), prompt: '2', signal: AbortSignal.abort() }, submit);
    await expect(events.next()).rejects.toMatchObject({ code: 'aborted' });
  });

  it('cancels when the loop is left, and waits for it', async () => {
    let stopped = false;
    const endless = (request: EditRequest) =>
      new Promise<EditResult>((_, reject) => {
        request.onProgress?.({ type: 'queued', ahead: 1, progress: 0 });
        request.signal?.addEventListener('abort', () => {
          setTimeout(() => {
            stopped = true;
            reject(abortedError(request.signal));
          }, 5);
        });
      });
    for await (const event of eventStream({ image: picture(0), prompt: '1' }, endless)) {
      expect(event.type).toBe('queued');
      break;
    }
    expect(stopped).toBe(true);
  });
});
