// One contender in a page; results go out as base64, which is the quickest way through the browser's remote control.

import { type ContenderName, Entrant } from './contender.ts';
import { type WorkName, workOf } from './works.ts';

const entrant = new Entrant();

export const load = (name: ContenderName): Promise<void> => entrant.load(name);
export const again = (): Promise<number> => entrant.again();

export async function prepare(name: WorkName): Promise<{ ms: number; result: string }> {
  const { ms, result } = await entrant.prepare(workOf(name));
  const bytes = new Uint8Array(result.buffer, result.byteOffset, result.byteLength);
  let text = '';
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return { ms, result: btoa(text) };
}
