// The strength of an adapter at each module, from a number or from patterns of module names.
import { KontextError } from '../../../../runtime/src/errors.ts';
import type { Adapter, AdapterUpdate } from '../../../../runtime/src/weights/adapters/types.ts';
import type { AdapterScale } from '../types.ts';

/**
 * Patterns are module names with `*` for any characters; of several that match, the last counts, and modules that none
 * matches are at 1. Text encoders' modules have `clip.` or `t5.` before their names.
 *
 * @throws KontextError `invalid-request` for a pattern that no module of the adapter matches
 */
export function scaleFunction(scale: AdapterScale, adapter: Adapter, name: string): (update: AdapterUpdate) => number {
  if (typeof scale === 'number') return () => scale;
  const rules = Object.entries(scale).map(([pattern, value]) => ({ matches: matcher(pattern), pattern, value }));
  for (const { matches, pattern } of rules) {
    if (adapter.updates.some((update) => matches(moduleName(update)))) continue;
    const example = moduleName(adapter.updates[0]!);
    throw new KontextError(
      'invalid-request',
      `No module of adapter "${name}" matches "${pattern}". Its modules are such as "${example}"; * stands for any characters.`,
      { option: 'adapters', pattern },
    );
  }
  return (update) => rules.findLast(({ matches }) => matches(moduleName(update)))?.value ?? 1;
}

/** As patterns see it. */
export const moduleName = ({ part, module }: AdapterUpdate): string =>
  part === 'transformer' ? module : `${part}.${module}`;

/** Without regular expressions: many stars in one can take for ever. */
function matcher(pattern: string): (name: string) => boolean {
  const [first = '', ...rest] = pattern.split('*');
  if (rest.length === 0) return (name) => name === first;
  const last = rest.at(-1)!;
  return (name) => {
    if (name.length < first.length + last.length || !name.startsWith(first) || !name.endsWith(last)) return false;
    let at = first.length;
    for (const part of rest.slice(0, -1)) {
      const found = name.indexOf(part, at);
      if (found < 0) return false;
      at = found + part.length;
    }
    return at <= name.length - last.length;
  };
}
