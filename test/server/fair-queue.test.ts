// The order of the queue in the process.
import { expect, it } from 'vitest';
import { FairQueue, type Waiting } from '../../sdk/src/server/local/fair-queue.ts';
import { bullPriority } from '../../sdk/src/server/redis/lanes.ts';

const job = (id: string, client = 'a', priority = 5, shape = 's'): Waiting => ({ id, client, priority, shape });
const drained = (queue: FairQueue<Waiting>, warm?: string) => {
  const order: string[] = [];
  for (let next = queue.next(warm); next; next = queue.next(warm)) order.push(next.id);
  return order.join(' ');
};

it('serves priorities first, then clients in turn, each in order', () => {
  const queue = new FairQueue<Waiting>();
  for (const id of ['a1', 'a2', 'a3']) queue.add(job(id));
  queue.add(job('b1', 'b'));
  queue.add(job('c1', 'c', 9));
  queue.add(job('d1', 'd', 0));
  queue.add(job('b2', 'b'));
  expect(queue.size).toBe(7);
  expect(drained(queue)).toBe('d1 a1 b1 a2 b2 a3 c1');
  expect(queue.size).toBe(0);
});

it('prefers the warm shape, but not for ever', () => {
  const queue = new FairQueue<Waiting>();
  queue.add(job('a1', 'a', 5, 'cold'));
  for (let i = 1; i <= 8; i++) queue.add(job(`b${i}`, 'b', 5, 'warm'));
  expect(drained(queue, 'warm')).toBe('b1 b2 b3 b4 a1 b5 b6 b7 b8');
});

it('takes jobs out of the middle', () => {
  const queue = new FairQueue<Waiting>();
  for (const id of ['a1', 'a2', 'a3']) queue.add(job(id));
  expect(queue.take('a2')?.id).toBe('a2');
  expect(queue.take('a2')).toBeUndefined();
  expect(drained(queue)).toBe('a1 a3');
});

it('gives BullMQ numbers in which levels never mix', () => {
  expect(bullPriority(0, 1)).toBeLessThan(bullPriority(0, 2));
  expect(bullPriority(0, 1e9)).toBeLessThan(bullPriority(1, 0));
  expect(bullPriority(9, 1e9)).toBeLessThanOrEqual(2 ** 21);
});
