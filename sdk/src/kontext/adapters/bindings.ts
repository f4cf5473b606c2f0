// Adapters in use on the device: room in programs, factors in ports, changed weights.
// Loaded with the first adapter; the networks ask it for what differs, and without it are as they are.
import type { Component } from '../../../../kernels-codegen/src/compile.ts';
import type { Executable } from '../../../../runtime/src/execute/executable.ts';
import { RoomContents } from '../../../../runtime/src/weights/adapters/fill.ts';
import { MergedWeights } from '../../../../runtime/src/weights/adapters/merge.ts';
import { type PartPlan, sharesKey } from '../../../../runtime/src/weights/adapters/plan.ts';
import type { Share } from '../../../../runtime/src/weights/adapters/stack.ts';
import type { AdapterPart } from '../../../../runtime/src/weights/adapters/types.ts';
import type { WeightStore, Weights } from '../../../../runtime/src/weights/store.ts';
import { type AdapterPlans, besideOf, type Ranks, ranksOf } from './room.ts';

const PARTS = ['transformer', 'clip', 't5'] as const satisfies AdapterPart[];

export class AdapterBindings {
  #plans: AdapterPlans = new Map();
  readonly #merged = new Map<AdapterPart, { key: string; weights: MergedWeights }>();
  readonly #contents = new WeakMap<Executable, RoomContents>();

  constructor(private readonly stores: Record<AdapterPart, WeightStore>) {}

  /**
   * What everything bound from now on runs with. Weights that stay as they are stay loaded.
   *
   * @param always what is in the weights for good
   * @param unbind frees the programs of a network whose weights change
   */
  async use(plans: AdapterPlans, always: AdapterPlans, unbind: (part: AdapterPart) => Promise<void>): Promise<void> {
    for (const part of PARTS) {
      const merged = joined(always.get(part)?.merged, plans.get(part)?.merged);
      const key = sharesKey(merged);
      const held = this.#merged.get(part);
      if (key === (held?.key ?? sharesKey(new Map()))) continue;
      await unbind(part);
      this.#merged.delete(part);
      await held?.weights.evict();
      if (merged.size === 0) continue;
      // As they were they are of no use while the adapters last.
      await this.stores[part].evict(new Set(merged.keys()));
      this.#merged.set(part, { key, weights: new MergedWeights(this.stores[part], merged) });
    }
    this.#plans = plans;
  }

  /** Equal for equal text encoders: prompts are remembered for each. */
  get textVariant(): string {
    const parts = (['clip', 't5'] as const).map((part) => {
      const beside = this.#plans.get(part)?.beside;
      return [beside && beside.size > 0 ? sharesKey(beside) : '', this.#merged.get(part)?.key ?? ''];
    });
    return parts.flat().some((key) => key !== '') ? JSON.stringify(parts) : '';
  }

  /** The network's weights with adapters in them; undefined when they are as they were. */
  weights(part: string): Weights | undefined {
    return this.#merged.get(part as AdapterPart)?.weights;
  }

  /** Names of the network's tensors that adapters are added to; undefined when there are none. */
  changed(part: string): ReadonlySet<string> | undefined {
    return this.#merged.get(part as AdapterPart)?.weights.names;
  }

  /**
   * The room a component's program needs: that of the program bound now, when the adapters fit and fill half of it.
   *
   * @returns undefined when no adapter changes the component
   */
  room(component: Component['component'], bound: Executable | undefined): Ranks | undefined {
    const ranks = ranksOf(besideOf(this.#plans, component));
    if (!ranks) return undefined;
    const held = bound && this.#contents.get(bound)?.ranks;
    const sum = (room: Ranks) => Object.values(room).reduce((total, rank) => total + rank, 0);
    const fits = held && Object.entries(ranks).every(([module, rank]) => rank <= (held[module] ?? 0));
    return fits && 2 * sum(ranks) >= sum(held) ? held : ranks;
  }

  /** A program with room that no adapter in use needs. */
  isIdle(component: Component['component'], executable: Executable): boolean {
    return besideOf(this.#plans, component).size === 0 && this.#contents.get(executable)?.ranks !== undefined;
  }

  /** Writes what changed into a bound program's room. @throws KontextError as {@link RoomContents.fill} */
  async fill(component: Component['component'], executable: Executable, signal: AbortSignal): Promise<void> {
    const contents = this.#contents.get(executable) ?? new RoomContents(executable);
    this.#contents.set(executable, contents);
    const beside = besideOf(this.#plans, component);
    // A part of the denoising program has only some of its layers; the other parts have the others.
    const has = ([module]: readonly [string, unknown]) =>
      component === 'denoise' || Object.hasOwn(contents.ranks ?? {}, module);
    await contents.fill(component.startsWith('denoise') ? new Map([...beside].filter(has)) : beside, signal);
  }

  /** On the GPU: factors of these programs, and changed weights. */
  bytes(executables: readonly Executable[]): number {
    const factors = executables.reduce((sum, one) => sum + (this.#contents.get(one)?.bytes ?? 0), 0);
    return [...this.#merged.values()].reduce((sum, { weights }) => sum + weights.bytes, factors);
  }

  /** Frees changed weights that no program uses. */
  async evict(part: string): Promise<void> {
    await this.#merged.get(part as AdapterPart)?.weights.evict();
  }
}

function joined(...maps: readonly (PartPlan['merged'] | undefined)[]): PartPlan['merged'] {
  const all = new Map<string, readonly Share[]>();
  for (const map of maps) {
    for (const [tensor, shares] of map ?? []) all.set(tensor, [...(all.get(tensor) ?? []), ...shares]);
  }
  return all;
}
