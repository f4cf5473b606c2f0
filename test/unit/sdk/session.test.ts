// Sessions and streams over an engine that adds numbers instead of editing: order, undo, forks, replay, cancelling.
import { describe, expect, it } from 'vitest';
import { abortedError } from '../../../runtime/src/errors.ts';
import type { PixelImage } from '../../../sdk/src/image/pixels.ts';
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
      text.replace('"version":1', '"version":9'),
      text.replace('"pixels"', '"pixles"'),
    ]) {
      await expect(session.import(wrong)).rejects.toMatchObject({ code: 'invalid-request' });
    }
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
