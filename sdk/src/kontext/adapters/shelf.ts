// Adapters of a loaded model: opened when first used, matched with it, given to requests by name or by source.
// What only requests brought is closed again by the first request that does without.
import { KontextError, throwIfAborted } from '../../../../runtime/src/errors.ts';
import { openAdapter } from '../../../../runtime/src/weights/adapters/open.ts';
import { type AdapterUse, type PartPlan, planAdapters } from '../../../../runtime/src/weights/adapters/plan.ts';
import type { Adapter, AdapterPart, ModelTensors } from '../../../../runtime/src/weights/adapters/types.ts';
import { openSafetensors } from '../../../../runtime/src/weights/files/safetensors.ts';
import { type FileInput, openFile } from '../../model/files.ts';
import type { Model } from '../../model/open.ts';
import { type PlaceOptions, resolveFile } from '../../model/resolve.ts';
import type { AdapterOptions, AdapterScale, UsedAdapter } from '../types.ts';
import { type CheckedAdapter, checkAdapters } from './check.ts';
import { type PlannedAdapters, plannedAdapters } from './room.ts';
import { scaleFunction } from './scales.ts';
import { type AdapterSettings, settingsOf } from './settings.ts';

/** What a request's adapters come to. */
export interface ChosenAdapters {
  plans: ReadonlyMap<AdapterPart, PartPlan>;
  used: UsedAdapter[];
  /** Options that the adapters want and the request may overrule. */
  settings: AdapterSettings;
}

const NONE: ChosenAdapters = { plans: new Map(), used: [], settings: {} };

interface Opened {
  name: string;
  adapter: Adapter;
}

/** The adapters of one model. */
export class AdapterShelf {
  readonly #named = new Map<string, Opened>();
  readonly #bySource = new Map<unknown, Opened>();
  readonly #defaults: readonly CheckedAdapter[];

  /**
   * @param given of `Kontext.load`: opened by the first request, used by all that name no others
   * @throws KontextError `invalid-request`
   */
  constructor(
    private readonly model: Model,
    given: readonly AdapterOptions[] | undefined,
    /** All of `given` are part of the weights, for good. */
    private readonly merge: boolean,
    /** How files on the hub and on other hosts may be reached. */
    private readonly place: PlaceOptions = {},
  ) {
    this.#defaults = checkAdapters(given, 'Kontext.load');
    const names = this.#defaults.map(({ name }) => name);
    const twice = names.find((name, i) => names.indexOf(name) !== i);
    if (twice !== undefined) {
      throw new KontextError('invalid-request', `Two adapters are named "${twice}". Give each a name of its own.`);
    }
  }

  /** Opens those of `Kontext.load`, so that a broken file is told there. */
  async ready(signal?: AbortSignal): Promise<void> {
    for (const wanted of this.#defaults) {
      if (!this.#named.has(wanted.name!)) this.#named.set(wanted.name!, await this.#open(wanted, signal));
    }
  }

  /** What is always in the weights; empty unless `merge`. */
  async merged(signal?: AbortSignal): Promise<ReadonlyMap<AdapterPart, PartPlan>> {
    if (!this.merge) return NONE.plans;
    await this.ready(signal);
    return planAdapters(this.#uses(this.#defaults), true);
  }

  /**
   * @param wanted of the request; undefined takes those of `Kontext.load`
   * @throws KontextError `invalid-request` for a name nobody knows, `weights-invalid`, `download-failed`, `aborted`
   */
  async choose(wanted: readonly CheckedAdapter[] | undefined, signal?: AbortSignal): Promise<ChosenAdapters> {
    await this.ready(signal);
    const list = wanted ?? (this.merge ? [] : this.#defaults);
    for (const one of list) {
      if (one.source !== undefined && !this.#opened(one))
        this.#bySource.set(keyOf(one.source), await this.#open(one, signal));
    }
    throwIfAborted(signal);
    const inUse = new Set(list.map((one) => this.#opened(one)));
    for (const [key, opened] of this.#bySource) {
      if (inUse.has(opened)) continue;
      this.#bySource.delete(key);
      await opened.adapter.close();
    }
    const always = this.merge ? this.#defaults : [];
    if (list.length + always.length === 0) return NONE;
    const plans = planAdapters(this.#uses(list));
    return {
      plans,
      used: [...always, ...list].map((one) => usedAdapter(this.#opened(one)!, one)),
      settings: Object.assign({}, ...[...always, ...list].map((one) => settingsOf(this.#opened(one)!.adapter))),
    };
  }

  /** Those of `Kontext.load`, for planning memory. */
  async planned(signal?: AbortSignal): Promise<PlannedAdapters> {
    return plannedAdapters((await this.choose(undefined, signal)).plans, await this.merged(signal));
  }

  async close(): Promise<void> {
    const all = [...this.#named.values(), ...this.#bySource.values()];
    this.#named.clear();
    this.#bySource.clear();
    await Promise.all(all.map(({ adapter }) => adapter.close()));
  }

  #uses(list: readonly CheckedAdapter[]): AdapterUse[] {
    return list.map((one) => {
      const { adapter, name } = this.#opened(one)!;
      return { adapter, scaleOf: scaleFunction(one.scale, adapter, name) };
    });
  }

  #opened({ name, source }: CheckedAdapter): Opened | undefined {
    if (source !== undefined) {
      const asLoaded = this.#defaults.find((one) => one.source === source && one.name === name);
      return asLoaded ? this.#named.get(name!) : this.#bySource.get(keyOf(source));
    }
    const known = this.#named.get(name!);
    if (known && !this.merge) return known;
    const names = [...this.#named.keys()].map((one) => `"${one}"`).join(', ');
    throw new KontextError(
      'invalid-request',
      known
        ? `The adapter "${name}" is merged into the weights: its strength cannot change. Load without merge.`
        : `There is no adapter "${name}". Kontext.load was given ${names || 'none'}; a request may also give a source.`,
      { adapter: name },
    );
  }

  async #open({ name, source, strict }: CheckedAdapter, signal: AbortSignal | undefined): Promise<Opened> {
    const tensors = (part: AdapterPart) => this.model.parts[part].weights.tensors;
    const model: ModelTensors = { transformer: tensors('transformer'), clip: tensors('clip'), t5: tensors('t5') };
    const adapter = await openAdapterFile(source!, model, { ...this.place, signal });
    if (strict && adapter.unused.length > 0) {
      await adapter.close();
      const { key, reason } = adapter.unused[0]!;
      const more = adapter.unused.length > 1 ? ` and ${adapter.unused.length - 1} more` : '';
      throw new KontextError(
        'weights-invalid',
        `${adapter.label}: "${key}"${more} cannot be used: ${reason}. With strict: false the rest is used, and the result lists these.`,
        { file: adapter.label, unused: adapter.unused.slice(0, 20) },
      );
    }
    return { name: name ?? adapter.label, adapter };
  }
}

/** A file as an adapter for a model. @throws KontextError `weights-invalid`, `download-failed` */
export async function openAdapterFile(input: FileInput, model: ModelTensors, place: PlaceOptions): Promise<Adapter> {
  const { signal } = place;
  const bytes = await openFile(await resolveFile(input, place), signal);
  try {
    return await openAdapter(await openSafetensors(bytes, signal), model, signal);
  } catch (error) {
    await bytes.close();
    throw error;
  }
}

/** Strings and addresses that are equal are the same file; bytes and Blobs are themselves. */
const keyOf = (source: FileInput): unknown => (source instanceof URL ? source.href : source);

function usedAdapter({ name, adapter }: Opened, { scale }: { scale: AdapterScale }): UsedAdapter {
  return { name, scale, ...(adapter.unused.length > 0 && { unused: [...adapter.unused] }) };
}
