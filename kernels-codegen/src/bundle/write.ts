// Compiles a list of programs into the files of a bundle. Pure: the same requests give the same bytes on every machine.
// WGSL modules and program bodies are stored once under the hash of their text.

import { KontextError } from '../../../runtime/src/errors.ts';
import { rowsAtOnce } from '../../../runtime/src/program/modulation-rows.ts';
import type { Program } from '../../../runtime/src/program/types.ts';
import { type CompileRequest, type Component, compile } from '../compile.ts';
import type { Quantization } from '../plan/weight-request.ts';
import type { TargetProfile } from '../targets/types.ts';
import { type Module, packModules, sha256 } from './pack.ts';
import type {
  BundleBody,
  BundleEntry,
  BundleManifest,
  BundleShape,
  BundleSignature,
  BundleSpecs,
  BundleStored,
} from './types.ts';

/** Raised whenever a bundle written by an older version could be misread; `sdk/src/programs/bundle.ts` holds its twin. */
export const BUNDLE_SCHEMA = 1;

export interface BundleRequest {
  /** For people: which model. */
  model: string;
  specs: BundleSpecs;
  shapes: readonly BundleShape[];
  targets: readonly TargetProfile[];
  quantizations: readonly Quantization[];
  /** For a packed or quantised model: what it holds its matrices in wins over `quantizations`. */
  stored?: BundleStored | undefined;
  /** Adds each module as a file of its own, for reading; the runtime never asks for these. */
  wgsl?: boolean;
  /** Signs the manifest's digest. */
  sign?: ((digest: string) => Promise<BundleSignature>) | undefined;
}

/**
 * @param onProgram called after each program and waited for; what it throws ends the compilation
 * @returns file contents by path: `manifest.json`, `modules/*.json`, `programs/*.json`, `index.js`, `index.d.ts`, `package.json`,
 *   `wgsl/*.wgsl`
 * @throws KontextError `invalid-request` for a shape the model cannot have, `limit-too-small` when a program exceeds a target and no
 *   tiles are among the shapes
 */
export async function writeBundle(
  request: BundleRequest,
  onProgram?: (done: number, total: number) => void | Promise<void>,
): Promise<Map<string, string>> {
  const modules = new Map<string, Module>();
  const bodies = new Map<string, string>();
  const entries: BundleEntry[] = [];
  const hashes = new Map<string, Promise<string>>();
  const hashOf = (text: string): Promise<string> => {
    const known = hashes.get(text) ?? sha256(text);
    hashes.set(text, known);
    return known;
  };
  const wanted = jobs(request);
  for (const [i, { shape, target, quantization }] of wanted.entries()) {
    const program = compile({ ...withSpec(shape, request), target, quantization } as CompileRequest);
    if (!isTiledInstead(shape, request.shapes)) checkFits(program, target);
    const kernels: BundleBody['kernels'] = [];
    for (const { label, wgsl, bindings } of program.kernels) {
      const hash = await hashOf(wgsl);
      const module = modules.get(hash) ?? { hash, label, wgsl, targets: new Set() };
      module.targets.add(target.name);
      modules.set(hash, module);
      kernels.push({ label, module: hash, bindings });
    }
    const { label, facts, requires, ...rest } = program;
    const text = JSON.stringify({ ...rest, kernels } satisfies BundleBody);
    const body = await sha256(text);
    bodies.set(body, text);
    entries.push({
      shape,
      target: target.name,
      quantization,
      label,
      facts,
      requires,
      body,
      bytes: byteLength(text),
      kernels: kernels.length,
      dispatches: program.dispatches.length,
      flops: sum(program.dispatches.map(({ flops }) => flops)),
      memory: {
        slabs: program.slabs,
        ports: sum(program.ports.map(({ bytes }) => bytes)),
        weights: sum(program.weights.map(({ bytes }) => bytes)),
      },
    });
    await onProgram?.(i + 1, wanted.length);
  }
  const { packs, texts } = await packModules([...modules.values()]);
  const manifest: BundleManifest = {
    schema: BUNDLE_SCHEMA,
    digest: '',
    model: request.model,
    specs: request.specs,
    ...(request.stored && Object.keys(request.stored).length > 0 && { stored: request.stored }),
    targets: [...request.targets],
    programs: entries,
    modules: packs,
  };
  manifest.digest = await sha256(JSON.stringify(manifest));
  if (request.sign) manifest.signature = await request.sign(manifest.digest);
  const files = new Map<string, string>();
  files.set('manifest.json', JSON.stringify(manifest));
  for (const [hash, text] of texts) files.set(`modules/${hash}.json`, text);
  const sorted = [...bodies].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [hash, text] of sorted) files.set(`programs/${hash}.json`, text);
  files.set('index.js', entryPoint(request.model, [...files.keys()]));
  files.set('index.d.ts', entryTypes(request.model));
  // Node takes index.js for what it is wherever the bundle lies.
  files.set('package.json', '{ "type": "module" }\n');
  if (request.wgsl) for (const module of modules.values()) files.set(readableName(module), module.wgsl);
  return files;
}

/** Quantisation changes only what reads the large matrices; the other programs are compiled once. */
function jobs({ shapes, targets, quantizations, specs }: BundleRequest) {
  return targets.flatMap((target) =>
    shapesOn(target, shapes, specs).flatMap((shape) => {
      const kinds: readonly Quantization[] = isQuantized(shape) ? quantizations : ['none'];
      return kinds.map((quantization) => ({ shape, target, quantization }));
    }),
  );
}

/** Many steps are made in turn by one program, where a target cannot hold them at once. */
function shapesOn(target: TargetProfile, shapes: readonly BundleShape[], { transformer }: BundleSpecs): BundleShape[] {
  const own = shapes.map((shape) =>
    shape.component === 'modulation' ? { ...shape, steps: rowsAtOnce(shape.steps, transformer, target.limits) } : shape,
  );
  return [...new Map(own.map((shape) => [JSON.stringify(shape), shape])).values()];
}

/** Whether a program reads matrices of the kind that quantisation stores otherwise. */
export const isQuantized = ({ component }: Pick<Component, 'component'>): boolean =>
  component === 't5' || component === 'modulation' || component.startsWith('denoise');

/** With the model's own numbers, and the formats its part is held in. */
function withSpec(shape: BundleShape, { specs, stored }: BundleRequest): Component {
  const of = (part: keyof BundleSpecs) => ({
    ...shape,
    spec: specs[part],
    ...(stored?.[part] && { stored: stored[part] }),
  });
  switch (shape.component) {
    case 'clip':
    case 't5':
      return of(shape.component) as Component;
    case 'modulation':
    case 'denoise':
    case 'denoise-first':
    case 'denoise-rest':
    case 'denoise-skip':
    case 'denoise-tell':
    case 'denoise-given':
    case 'denoise-nag':
    case 'denoise-region':
      return of('transformer') as Component;
    case 'vae-encode':
    case 'vae-decode':
      return of('vae') as Component;
    default:
      return shape;
  }
}

/** Where the autoencoder does not fit in one piece, the engine goes by tiles: the entry says what the piece would need. */
function isTiledInstead({ component }: BundleShape, shapes: readonly BundleShape[]): boolean {
  const tiles = shapes.some((other) => other.component === 'tile-blend');
  return tiles && (component === 'vae-encode' || component === 'vae-decode');
}

/** A program that its own target refuses must not be shipped. */
function checkFits({ label, requires }: Program, target: TargetProfile): void {
  for (const [limit, needed] of Object.entries(requires.limits)) {
    const available = target.limits[limit as keyof TargetProfile['limits']];
    if (needed <= available) continue;
    throw new KontextError(
      'limit-too-small',
      `"${label}" needs ${limit} of ${needed}; the target offers ${available}. Leave the target out, or choose a smaller size.`,
      { limit, needed, available, target: target.name },
    );
  }
}

/** Imports with literal paths: bundlers follow them, and each file is loaded when first asked for. */
function entryPoint(model: string, paths: string[]): string {
  const lines = paths.map((path) => `  '${path}': () => import('./${path}', { with: { type: 'json' } }),`);
  return `// Programs of ${JSON.stringify(model)}, compiled ahead of time. Generated: do not edit.
const files = {
${lines.join('\n')}
};
export default {
  label: ${JSON.stringify(`The bundle of ${model}`)},
  async read(path) {
    const load = files[path];
    if (!load) throw new Error(\`there is no file \${path}\`);
    return (await load()).default;
  },
};
`;
}

function entryTypes(model: string): string {
  return `/** Programs of ${JSON.stringify(model)}, compiled ahead of time: for \`Kontext.load(model, { programs })\`. */
declare const programs: { label: string; read(path: string): Promise<unknown> };
export default programs;
`;
}

function readableName({ hash, label }: Module): string {
  const words = label.replaceAll('×', 'x').replace(/[^a-z0-9]+/gi, '-');
  return `wgsl/${words.replace(/^-|-$/g, '')}-${hash.slice(0, 8)}.wgsl`;
}

const byteLength = (text: string): number => new TextEncoder().encode(text).length;

const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);
