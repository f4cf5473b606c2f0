// The queue and the progress estimate: order, cancellation while waiting, closing; shares that never fall.
import { describe, expect, it } from 'vitest';
import { ProgressTracker } from '../../../sdk/src/kontext/progress.ts';
import { Queue } from '../../../sdk/src/kontext/queue.ts';
import type { ProgressEvent } from '../../../sdk/src/kontext/types.ts';

/** A task that ends when told to, or with the signal it is given. */
function manual() {
  let finish = () => {};
  const done = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const log: string[] = [];
  const task = (name: string) => (signal: AbortSignal) => {
    log.push(`start ${name}`);
    return new Promise<string>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('stopped')), { once: true });
      void done.then(() => resolve(name));
    });
  };
  return { task, finish, log };
}

const settle = () => new Promise((resolve) => setTimeout(resolve, 5));

describe('Queue', () => {
  it('runs one task at a time, in order, and says how many are ahead', async () => {
    const queue = new Queue();
    const { task, finish, log } = manual();
    const ahead: number[] = [];
    const results = [
      queue.run(task('a'), undefined, (n) => ahead.push(n)),
      queue.run(task('b'), undefined, (n) => ahead.push(n)),
      queue.run(task('c'), undefined, (n) => ahead.push(n)),
    ];
    await settle();
    expect(log).toEqual(['start a']);
    expect(ahead).toEqual([1, 2]);
    finish();
    expect(await Promise.all(results)).toEqual(['a', 'b', 'c']);
    expect(log).toEqual(['start a', 'start b', 'start c']);
  });

  it('lets a waiting task be cancelled without touching the others', async () => {
    const queue = new Queue();
    const { task, finish, log } = manual();
    const controller = new AbortController();
    const a = queue.run(task('a'));
    const b = queue.run(task('b'), controller.signal);
    const c = queue.run(task('c'));
    controller.abort();
    await expect(b).rejects.toMatchObject({ code: 'aborted' });
    await settle();
    expect(log).toEqual(['start a']);
    finish();
    expect(await Promise.all([a, c])).toEqual(['a', 'c']);
  });

  it('goes on after a failure', async () => {
    const queue = new Queue();
    await expect(queue.run(() => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
    expect(await queue.run(async () => 1)).toBe(1);
  });

  it('rejects what runs, what waits and what comes after closing', async () => {
    const queue = new Queue();
    const { task } = manual();
    const outcomes = Promise.allSettled([queue.run(task('a')), queue.run(task('b'))]);
    await settle();
    await queue.close();
    for (const outcome of await outcomes)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'closed' } });
    await expect(queue.run(task('c'))).rejects.toMatchObject({ code: 'closed' });
  });
});

describe('ProgressTracker', () => {
  it('never falls, ends at 1 and predicts the rest from measured rates', () => {
    const events: ProgressEvent[] = [];
    const tracker = new ProgressTracker((event) => events.push(event));
    tracker.plan('run text', 100);
    tracker.plan('run steps', 900);
    tracker.plan('load text', 100);
    tracker.send({ type: 'stage', stage: 'encode-text' });
    tracker.finish('load text', 50, 20);
    tracker.send({ type: 'stage', stage: 'modulation' });
    for (const ms of [5, 5]) tracker.finish('run text', 50, ms);
    tracker.send({ type: 'stage', stage: 'denoise' });
    // 50 bytes at 2.5/ms, and 900 operations at the 10/ms of the other component.
    expect(events.at(-1)).toMatchObject({ remainingMs: 110 });
    tracker.finish('load text', 50, 20);
    tracker.finish('run steps', 300, 60);
    tracker.send({ type: 'step', image: 0, step: 1, steps: 3, stepMs: 60 });
    // Steps have their own rate now: 600 operations at 5/ms.
    expect(events.at(-1)).toMatchObject({ remainingMs: 120 });
    tracker.plan('run decode', 5000); // a late announcement may not turn the bar back
    tracker.send({ type: 'stage', stage: 'decode' });
    tracker.send({ type: 'done' });
    const shares = events.map((e) => e.progress);
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(events[0]).not.toHaveProperty('remainingMs');
    expect(events.at(-1)).toEqual({ type: 'done', progress: 1, remainingMs: 0 });
  });
});
