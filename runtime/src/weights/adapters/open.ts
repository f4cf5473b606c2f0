// Opens an adapter file: matches its keys with a model's modules and checks every shape, before any factor is read.
// What it cannot use is listed with the reason; what contradicts itself is an error.

import { KontextError } from '../../errors.ts';
import type { WeightSource } from '../source.ts';
import { type PeftSettings, peftSettings } from './metadata.ts';
import { type ModuleNames, moduleNames, type NamedModule } from './names.ts';
import { LEAVES, type Leaf, PREFIXES, WRAPPER } from './styles.ts';
import type {
  Adapter,
  AdapterPart,
  AdapterUpdate,
  KroneckerFactor,
  ModelTensors,
  StoredUpdate,
  UnusedKey,
} from './types.ts';
import { readScalar } from './values.ts';

/**
 * @param source the file's tensors; closed with the adapter
 * @param model shapes of the tensors of the model it is for, under BFL names
 * @throws KontextError `weights-invalid` when a shape does not fit the model or the file's own factors, or nothing in it is known
 */
export async function openAdapter(source: WeightSource, model: ModelTensors, signal?: AbortSignal): Promise<Adapter> {
  const names = Object.fromEntries(
    Object.entries(model).map(([part, tensors]) => [part, moduleNames(part as AdapterPart, tensors)]),
  ) as Record<AdapterPart, ModuleNames>;
  const unused: UnusedKey[] = [];
  const styles = new Set<string>();
  const groups = new Map<string, Group>();
  for (const key of source.tensors.keys()) {
    const found = splitKey(key);
    if (!found) {
      unused.push({ key, reason: 'it is no part of an adapter' });
      continue;
    }
    const { stem, leaf } = found;
    if (typeof leaf.role === 'object') {
      unused.push({ key, reason: leaf.role.refused });
      continue;
    }
    let group = groups.get(stem);
    if (!group) {
      const place = locate(stem, names);
      if (place) styles.add(place.style);
      group = { stem, place: place?.named, keys: new Map() };
      groups.set(stem, group);
    }
    const role = leaf.family ? `${leaf.family} ${leaf.role}` : leaf.role;
    const earlier = group.keys.get(role);
    if (earlier) throw invalid(source, `"${key}" and "${earlier}" are the same factor of one module`, key);
    group.keys.set(role, key);
  }
  const metadata = source.metadata ?? {};
  const settings = peftSettings(metadata);
  const updates: AdapterUpdate[] = [];
  // DoRA scales the sum with the weight: without it the factors alone would be another adapter.
  const scaled = new Set(
    unused.filter(({ reason }) => reason.startsWith('DoRA')).map(({ key }) => splitKey(key)!.stem),
  );
  for (const group of groups.values()) {
    const refuse = (reason: string): void => {
      for (const key of group.keys.values()) unused.push({ key, reason });
    };
    if (!group.place) refuse('the model has no such module');
    else if (scaled.has(group.stem)) refuse('it belongs to a module with DoRA, which is not supported');
    else
      updates.push(
        ...(await updatesOf(source, group as Group & { place: NamedModule }, model, settings, unused, signal)),
      );
  }
  if (updates.length === 0) {
    const example = unused[0] ? ` "${unused[0].key}": ${unused[0].reason}.` : '';
    throw new KontextError(
      'weights-invalid',
      `${source.label} has no adapter for this model.${example} kontext lora FILE lists what is in it.`,
      { file: source.label, unused: unused.slice(0, 20) },
    );
  }
  refuseOverlaps(source, updates);
  return {
    label: source.label,
    updates,
    unused,
    styles: [...styles],
    metadata,
    bytes: [...source.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0),
    source,
    close: () => source.close(),
  };
}

interface Group {
  stem: string;
  place: NamedModule | undefined;
  /** Key by role. */
  keys: Map<string, string>;
}

function splitKey(key: string): { stem: string; leaf: Leaf } | undefined {
  for (const leaf of LEAVES) {
    const match = leaf.pattern.exec(key);
    if (match && match.index > 0) return { stem: key.slice(0, match.index), leaf };
  }
  return undefined;
}

function locate(
  stem: string,
  names: Record<AdapterPart, ModuleNames>,
): { named: NamedModule; style: string } | undefined {
  const bare = stem.startsWith(WRAPPER) ? stem.slice(WRAPPER.length) : stem;
  for (const { text, parts, underscored, style } of PREFIXES) {
    if (!bare.startsWith(text)) continue;
    for (const part of parts) {
      const named = names[part][underscored ? 'underscored' : 'dotted'].get(bare.slice(text.length));
      if (!named) continue;
      const spoken = bare.includes('.processor.') ? 'XLabs' : bare === stem ? style : 'PEFT wrapper';
      return { named, style: spoken };
    }
  }
  return undefined;
}

async function updatesOf(
  source: WeightSource,
  { stem, place, keys }: Group & { place: NamedModule },
  model: ModelTensors,
  settings: PeftSettings,
  unused: UnusedKey[],
  signal: AbortSignal | undefined,
): Promise<AdapterUpdate[]> {
  const tensors = model[place.part];
  const leaf = tensors.has(`${place.module}.weight`) ? 'weight' : 'scale';
  const weight = tensors.get(`${place.module}.${leaf}`)!.shape;
  const isVector = weight.length === 1;
  const rows: [number, number] = place.rows ?? [0, weight[0]!];
  const count = rows[1] - rows[0];
  const common = { part: place.part, module: place.module, rows, swapHalves: place.swapHalves ?? false };
  const cols = isVector ? 1 : weight[1]!;
  const key = (role: string): string | undefined => keys.get(role);
  const sizes = (role: string): readonly [number, number] => matrixShape(source, keys.get(role)!);
  const refuse = (why: string): never => {
    throw invalid(source, `module "${stem}" ${why}`, [...keys.values()][0]!);
  };
  const expect = (what: string, [n, k]: readonly [number, number]): void => {
    if (n !== count || k !== cols) {
      refuse(`has ${what} for a [${n}, ${k}] matrix; "${place.module}" of this model takes [${count}, ${cols}]`);
    }
  };
  const found: AdapterUpdate[] = [];
  const add = (tensor: string, width: number, stored: StoredUpdate, rank: number, scaling: Scaling): void => {
    found.push({ ...common, tensor: `${place.module}.${tensor}`, cols: width, stored, rank, ...scaling });
  };
  const alphaKey = key('alpha');
  const alpha = alphaKey === undefined ? undefined : await readScalar(source, alphaKey, signal);
  const pair = (a: string, b: string): boolean => {
    if ((key(a) === undefined) === (key(b) === undefined)) return key(a) !== undefined;
    return refuse(`has "${key(a) ?? key(b)}" without its partner`);
  };
  let scaling: Scaling = { factor: 1 };

  if (pair('down', 'up')) {
    if (isVector) refuse('has factors of a matrix, but is a vector in this model');
    const [rank, k] = sizes('down');
    const [n, r] = sizes('up');
    if (r !== rank) refuse(`has factors of rank ${rank} and ${r}`);
    expect('factors', [n, k]);
    scaling = alpha === undefined ? settings.scaling(stem, rank) : byRank(alpha, rank);
    add('weight', cols, { kind: 'low-rank', down: key('down')!, up: key('up')! }, rank, scaling);
  }
  if (['w1a', 'w1b', 'w2a', 'w2b'].some((role) => key(`loha ${role}`))) {
    for (const role of ['w1a', 'w1b', 'w2a', 'w2b'])
      if (!key(`loha ${role}`)) refuse(`has no hada_${role.replace(/(\d)/, '$1_')}`);
    const shapes = ['w1a', 'w1b', 'w2a', 'w2b'].map((role) => sizes(`loha ${role}`));
    const [a1, b1, a2, b2] = shapes as [readonly [number, number], ...(readonly [number, number])[]];
    if (a1[1] !== b1![0] || a2![1] !== b2![0]) refuse('has factors of different ranks');
    expect('factors', [a1[0], b1![1]]);
    expect('factors', [a2![0], b2![1]]);
    const names = ['w1a', 'w1b', 'w2a', 'w2b'].map((role) => key(`loha ${role}`)!) as [string, string, string, string];
    const [w1a, w1b, w2a, w2b] = names;
    const rank = Math.min(a1[1] * a2![1], count, cols);
    add('weight', cols, { kind: 'loha', w1a, w1b, w2a, w2b }, rank, byRank(alpha ?? a1[1], a1[1]));
  }
  if ([...keys.keys()].some((role) => role.startsWith('lokr'))) {
    const [w1, w2] = [kronecker('1'), kronecker('2')];
    expect('factors', [w1.shape[0] * w2.shape[0], w1.shape[1] * w2.shape[1]]);
    // Two whole factors: trainers store an alpha that means nothing.
    const divisor = w2.rank ?? w1.rank;
    const most = (f: Kronecker): number => Math.min(f.rank ?? Number.POSITIVE_INFINITY, ...f.shape);
    const factors = { kind: 'lokr', w1: w1.factor, w2: w2.factor } as const;
    add(
      'weight',
      cols,
      factors,
      most(w1) * most(w2),
      divisor === undefined ? { factor: 1 } : byRank(alpha ?? divisor, divisor),
    );
  }
  if (key('difference')) {
    expect('a difference', isVector ? [vectorLength(source, key('difference')!), 1] : sizes('difference'));
    add(leaf, cols, { kind: 'difference', tensor: key('difference')! }, Math.min(count, cols), { factor: 1 });
  }
  for (const role of ['bias', 'bias-difference']) {
    const name = key(role);
    if (name === undefined) continue;
    if (!tensors.has(`${place.module}.bias`)) {
      unused.push({ key: name, reason: 'the module has no bias in this model' });
      continue;
    }
    const length = vectorLength(source, name);
    if (length !== count) refuse(`has a bias of ${length} values instead of ${count}`);
    // PEFT adds lora_B's bias inside the scaled branch: it is multiplied like the product.
    add(
      'bias',
      1,
      { kind: 'difference', tensor: name },
      1,
      role === 'bias' ? { factor: scaling.factor } : { factor: 1 },
    );
  }
  if (found.length === 0) refuse('has no factors');
  return found;

  function kronecker(n: '1' | '2'): Kronecker {
    const whole = key(`lokr w${n}`);
    if (whole !== undefined) return { factor: { whole }, shape: sizes(`lokr w${n}`) };
    if (!pair(`lokr w${n}a`, `lokr w${n}b`)) refuse(`has no lokr_w${n}`);
    const [a, b] = [sizes(`lokr w${n}a`), sizes(`lokr w${n}b`)];
    if (a[1] !== b[0]) refuse('has factors of different ranks');
    const factor = { a: key(`lokr w${n}a`)!, b: key(`lokr w${n}b`)! };
    return { factor, shape: [a[0], b[1]], rank: a[1] };
  }
}

interface Kronecker {
  factor: KroneckerFactor;
  shape: readonly [number, number];
  /** Set when the factor is a product. */
  rank?: number;
}

type Scaling = { factor: number; alpha?: number };

const byRank = (alpha: number, rank: number): Scaling => ({ factor: alpha / rank, alpha });

/** `[n, k]`; convolution trainers append axes of one to linears. */
function matrixShape(source: WeightSource, key: string): readonly [number, number] {
  const { shape } = source.tensors.get(key)!;
  const [n, k, ...rest] = shape;
  if (n && k && rest.every((size) => size === 1)) return [n, k];
  throw invalid(source, `"${key}" has the shape [${shape.join(', ')}], not two axes`, key);
}

function vectorLength(source: WeightSource, key: string): number {
  const { shape } = source.tensors.get(key)!;
  if (shape.length === 1) return shape[0]!;
  throw invalid(source, `"${key}" has the shape [${shape.join(', ')}], not one axis`, key);
}

/** One module under two names would be added twice, which nobody means. */
function refuseOverlaps(source: WeightSource, updates: readonly AdapterUpdate[]): void {
  const seen = new Map<string, AdapterUpdate>();
  for (const update of updates) {
    const key = `${update.part} ${update.tensor} ${update.rows} ${update.stored.kind}`;
    if (seen.has(key)) throw invalid(source, `module "${update.module}" is there twice, under two names`);
    seen.set(key, update);
  }
}

function invalid(source: WeightSource, problem: string, tensor?: string): KontextError {
  return new KontextError('weights-invalid', `${source.label} is not a usable adapter: ${problem}.`, {
    file: source.label,
    ...(tensor === undefined ? {} : { tensor }),
  });
}
