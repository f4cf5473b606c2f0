// One contender in a process of its own, told what to do over the parent's channel: a crash ends this process only.

import { create, globals } from 'webgpu';
import { type ContenderName, Entrant } from './contender.ts';
import { type WorkName, workOf } from './works.ts';

export type Command = { load: ContenderName } | { prepare: WorkName } | 'again';
export type Answer = { loaded: true } | { ms: number; result?: Float32Array } | { error: string };

const entrant = new Entrant();

async function answer(command: Command): Promise<Answer> {
  if (command === 'again') return { ms: await entrant.again() };
  if ('prepare' in command) return entrant.prepare(workOf(command.prepare));
  if (!command.load.startsWith('ours')) offerWebGpu();
  await entrant.load(command.load);
  return { loaded: true };
}

/** Rivals look for WebGPU where pages have it; the project opens Dawn by itself, with the same toggles. */
function offerWebGpu(): void {
  const gpu = create(['enable-dawn-features=allow_unsafe_apis']);
  Object.assign(globalThis, globals);
  const navigator = { gpu, userAgent: 'Node', hardwareConcurrency: 2, platform: process.platform };
  Object.defineProperty(globalThis, 'navigator', { value: navigator, configurable: true });
}

/** jax-js maps over iterators, which Node can from version 22 on. */
function* mapped<T, U>(this: Iterable<T>, each: (value: T, i: number) => U): Generator<U> {
  let i = 0;
  for (const value of this) yield each(value, i++);
}
function* filtered<T>(this: Iterable<T>, keep: (value: T) => boolean): Generator<T> {
  for (const value of this) if (keep(value)) yield value;
}
const iterators = Object.getPrototypeOf(Object.getPrototypeOf([].values()));
iterators.map ??= mapped;
iterators.filter ??= filtered;

process.on('message', (command: Command) => {
  answer(command)
    .catch((error: unknown): Answer => ({ error: String((error as Error)?.message ?? error) }))
    .then((reply) => process.send!(reply));
});
// Two devices in a process may hang when it ends by itself; nothing is left to be done then.
process.on('disconnect', () => process.exit(0));
