// Decides for every change of the adapters in use how it is added: beside its layer, or into the weight.

import { runsBeside } from './factors.ts';
import type { Share } from './stack.ts';
import type { Adapter, AdapterPart, AdapterUpdate } from './types.ts';

/** An adapter and its strength at each of its updates. */
export interface AdapterUse {
  adapter: Adapter;
  scaleOf(update: AdapterUpdate): number;
}

/** The changes of one network. */
export interface PartPlan {
  /** By module: run beside the layer, in a program with room. */
  beside: ReadonlyMap<string, readonly Share[]>;
  /** By tensor: added to the weight when it is loaded. */
  merged: ReadonlyMap<string, readonly Share[]>;
}

/**
 * @param merge add everything to the weights
 * @returns networks that no adapter changes are absent; a strength of zero is no change
 */
export function planAdapters(uses: readonly AdapterUse[], merge = false): ReadonlyMap<AdapterPart, PartPlan> {
  const plans = new Map<AdapterPart, { beside: Map<string, Share[]>; merged: Map<string, Share[]> }>();
  for (const { adapter, scaleOf } of uses) {
    for (const update of adapter.updates) {
      const scale = scaleOf(update);
      if (scale === 0 || update.factor === 0) continue;
      const plan = plans.get(update.part) ?? { beside: new Map(), merged: new Map() };
      plans.set(update.part, plan);
      const [way, key] = !merge && runsBeside(update) ? [plan.beside, update.module] : [plan.merged, update.tensor];
      const shares = way.get(key);
      if (shares) shares.push({ adapter, update, scale });
      else way.set(key, [{ adapter, update, scale }]);
    }
  }
  return plans;
}

/** Equal for equal changes at equal strengths. */
export function planKey(plan: PartPlan | undefined): string {
  if (!plan) return '';
  return JSON.stringify([plan.beside, plan.merged].map(sharesKey));
}

export const sharesKey = (shares: ReadonlyMap<string, readonly Share[]>): string =>
  JSON.stringify(
    [...shares].map(([name, list]) => [
      name,
      list.map(({ adapter, update, scale }) => [
        numberOf(adapter),
        update.tensor,
        update.rows[0],
        update.stored.kind,
        scale,
      ]),
    ]),
  );

/** Each opened adapter is itself, whatever its file is called. */
function numberOf(adapter: Adapter): number {
  const known = numbers.get(adapter) ?? nextNumber++;
  numbers.set(adapter, known);
  return known;
}

const numbers = new WeakMap<Adapter, number>();
let nextNumber = 1;
