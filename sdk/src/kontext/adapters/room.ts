// What adapters change of the model's programs: the rank that each layer needs room for, and tensors that are other than stored.
import type { Component } from '../../../../kernels-codegen/src/compile.ts';
import { RANK_UNIT } from '../../../../runtime/src/program/adapter-rooms.ts';
import type { PartPlan } from '../../../../runtime/src/weights/adapters/plan.ts';
import { type Share, stackedRank } from '../../../../runtime/src/weights/adapters/stack.ts';
import type { AdapterPart } from '../../../../runtime/src/weights/adapters/types.ts';

/** Changes by network. */
export type AdapterPlans = ReadonlyMap<AdapterPart, PartPlan>;

/** Ranks by module. */
export type Ranks = Readonly<Record<string, number>>;

/** What is planned with, when adapters are. */
export interface PlannedAdapters {
  /** @returns undefined when no adapter changes the component */
  room(component: Component['component']): Ranks | undefined;
  /** Names of the network's tensors that adapters are added to; undefined when there are none. */
  changed(part: string): ReadonlySet<string> | undefined;
}

/** @param always what is in the weights for good */
export function plannedAdapters(plans: AdapterPlans, always: AdapterPlans): PlannedAdapters {
  return {
    room: (component) => ranksOf(besideOf(plans, component)),
    changed(part) {
      const names = [always, plans].flatMap((one) => [...(one.get(part as AdapterPart)?.merged.keys() ?? [])]);
      return names.length > 0 ? new Set(names) : undefined;
    },
  };
}

/** What runs beside the layers of a component's program, by module. */
export function besideOf(plans: AdapterPlans, component: Component['component']): PartPlan['beside'] {
  if (component === 'clip' || component === 't5') return plans.get(component)?.beside ?? new Map();
  if (component !== 'modulation' && !component.startsWith('denoise')) return new Map();
  const beside = plans.get('transformer')?.beside ?? new Map<string, readonly Share[]>();
  return new Map([...beside].filter(([module]) => isModulation(module) === (component === 'modulation')));
}

/** The room that these need; undefined for none. */
export function ranksOf(beside: PartPlan['beside']): Ranks | undefined {
  if (beside.size === 0) return undefined;
  return Object.fromEntries(
    [...beside].map(([module, shares]) => [module, Math.ceil(stackedRank(shares) / RANK_UNIT) * RANK_UNIT]),
  );
}

/** Layers that timestep, guidance and pooled text alone decide: the modulation program has them. */
const isModulation = (module: string): boolean =>
  /(?:_mod|\.modulation)\.lin$|\.adaLN_modulation\.1$|^(?:time|vector|guidance)_in\./.test(module);
