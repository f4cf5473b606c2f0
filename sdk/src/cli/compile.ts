// `kontext compile`: programs for known GPUs and sizes, ahead of time, without a GPU and without weights.
// Written beside the target folder and renamed at the end, so a stopped run leaves no half bundle.
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import type { BundleManifest, BundleShape, BundleSpecs } from '../../../kernels-codegen/src/bundle/types.ts';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { PREFERRED_KONTEXT_SIZES } from '../host/sizes.ts';
import { patches, TOKEN_CHANNELS, tokenCount } from '../kontext/latents.ts';
import { type ModelDefaults, REQUEST_OPTIONS } from '../kontext/options.ts';
import { PREVIEW_PROGRAM } from '../kontext/preview.ts';
import { justInTime } from '../kontext/programs.ts';
import { tilePrograms } from '../kontext/tiling.ts';
import type { ImageSize } from '../kontext/types.ts';
import { demoModel } from '../model/demo.ts';
import { openModel } from '../model/open.ts';
import { type BundleSignature, signBundle } from '../programs/signature.ts';
import { bundleFolder } from '../programs/sources.ts';
import { usage } from './arguments.ts';
import { diffBundles } from './diff.ts';
import { resolveTarget } from './targets.ts';

const OPTIONS = {
  model: { type: 'string', default: 'flux1-kontext-dev' },
  size: { type: 'string', multiple: true },
  preferred: { type: 'boolean' },
  reference: { type: 'string', multiple: true },
  target: { type: 'string', multiple: true },
  quantization: { type: 'string', default: 'f16' },
  steps: { type: 'string' },
  'max-sequence-length': { type: 'string' },
  wgsl: { type: 'boolean' },
  diff: { type: 'boolean' },
  sign: { type: 'string' },
  output: { type: 'string', short: 'o' },
} as const;

const QUANTIZATIONS = ['none', 'f16', 'q8', 'q4'] as const;
const CLIP_TOKENS = 77;

/** @throws KontextError `invalid-request`, `limit-too-small` when a program exceeds a target */
export async function compileCommand(args: readonly string[]): Promise<void> {
  const { values, positionals } = parse(args);
  if (values.diff) {
    const [a, b] = positionals;
    if (positionals.length !== 2) throw usage('kontext compile --diff takes two bundles: A B.');
    console.log((await diffBundles(bundleFolder(a!), bundleFolder(b!))).join('\n') || 'No difference.');
    return;
  }
  if (positionals.length > 0) throw usage(`kontext compile takes no words, but got "${positionals[0]}".`);
  if (values.output === undefined) throw usage('Where should the bundle go? Give -o DIR.');
  const started = performance.now();
  const quantizations = values.quantization.split(',').map((name) => {
    const known = QUANTIZATIONS.find((q) => q === name);
    if (known) return known;
    throw usage(`--quantization is "${name}"; it must be of ${QUANTIZATIONS.join(', ')}.`);
  });
  const names = (values.target ?? []).flatMap((list) => list.split(','));
  if (names.length === 0) throw usage('For which GPUs? Give --target NAME[,NAME…]; kontext targets lists them.');
  const targets: TargetProfile[] = [];
  for (const name of names) targets.push(await resolveTarget(name));
  const { specs, defaults, label } = await specsOf(values.model);
  const preferred = values.preferred ? (defaults.preferredSizes ?? PREFERRED_KONTEXT_SIZES) : [];
  const sizes = [
    ...(values.size ?? []).map(sizeFrom),
    ...preferred.map(([width, height]): ImageSize => ({ width, height })),
  ];
  if (sizes.length === 0) throw usage('Which sizes? Give --size 1024x1024, once for each, or --preferred.');
  const shapes = shapesFor({
    sizes,
    references: values.reference?.map(sizeFrom),
    steps: values.steps?.split(',').map((text) => whole(text, 'steps')) ?? [
      defaults.steps ?? REQUEST_OPTIONS.steps.default!,
    ],
    textTokens:
      values['max-sequence-length'] === undefined
        ? (defaults.maxSequenceLength ?? REQUEST_OPTIONS.maxSequenceLength.default!)
        : whole(values['max-sequence-length'], 'max-sequence-length'),
  });
  const { writeBundle } = await import('../../../kernels-codegen/src/bundle/write.ts');
  const wgsl = values.wgsl === true;
  const terminal = process.stderr.isTTY;
  const sign = await signer(values.sign);
  const files = await writeBundle(
    { model: label, specs, shapes, targets, quantizations, wgsl, sign },
    (done, total) => {
      if (terminal) process.stderr.write(done < total ? `\rprogram ${done} of ${total}` : '\r\x1b[K');
    },
  );
  await save(resolve(values.output), files);
  const manifest = JSON.parse(files.get('manifest.json')!) as BundleManifest;
  let [bytes, gzipped] = [0, 0];
  for (const [path, text] of files) {
    if (path.startsWith('wgsl/')) continue;
    bytes += Buffer.byteLength(text);
    gzipped += gzipSync(text).length;
  }
  console.log(
    `${values.output}: ${manifest.programs.length} programs for ${targets.map(({ name }) => name).join(', ')}; ` +
      `${manifest.modules.reduce((sum, { holds }) => sum + holds.length, 0)} kernels, ${files.size} files, ${kib(bytes)} (${kib(gzipped)} gzipped), ` +
      `${((performance.now() - started) / 1000).toFixed(1)} s`,
  );
}

/** Reads the key before anything is compiled: a wrong path ends in a second. */
async function signer(path: string | undefined): Promise<((digest: string) => Promise<BundleSignature>) | undefined> {
  if (path === undefined) return undefined;
  const key = await readFile(path, 'utf8').catch((cause: Error) => {
    throw usage(
      `The signing key ${path} cannot be read: ${cause.message}. Make one with: openssl genpkey -algorithm ed25519 -out ${path}`,
    );
  });
  await signBundle(key, '');
  return (digest) => signBundle(key, digest);
}

/**
 * Every program that edits and generations of these sizes may ask for, with those for previews and for pictures decoded in
 * tiles when memory is short; a reference defaults to the picture's own size.
 */
export function shapesFor(wanted: {
  sizes: readonly ImageSize[];
  references: readonly ImageSize[] | undefined;
  steps: readonly number[];
  textTokens: number;
}): BundleShape[] {
  const { textTokens, steps, sizes } = wanted;
  const shapes: BundleShape[] = [
    { component: 'clip', tokens: CLIP_TOKENS },
    { component: 't5', tokens: textTokens },
    ...steps.map((steps): BundleShape => ({ component: 'modulation', steps })),
    PREVIEW_PROGRAM,
  ];
  for (const size of sizes) {
    const image = patches(size);
    const tokens = tokenCount(size);
    const { width, height } = size;
    const references = wanted.references ?? [size];
    shapes.push({ component: 'denoise', textTokens, image, references: [] });
    for (const reference of references) {
      shapes.push({ component: 'denoise', textTokens, image, references: [patches(reference)] });
      shapes.push({ component: 'vae-encode', width: reference.width, height: reference.height });
      shapes.push(...tilePrograms('encode', reference));
    }
    shapes.push({ component: 'euler', tokens, channels: TOKEN_CHANNELS });
    shapes.push({ component: 'cfg', tokens, channels: TOKEN_CHANNELS });
    shapes.push({ component: 'vae-decode', width, height }, ...tilePrograms('decode', size));
  }
  const unique = new Map(shapes.map((shape) => [JSON.stringify(shape), shape]));
  return [...unique.values()];
}

async function specsOf(model: string): Promise<{ specs: BundleSpecs; defaults: ModelDefaults; label: string }> {
  if (model === 'flux1-kontext-dev') {
    const { FLUX1_KONTEXT_DEV: specs } = await import('../../../kernels-codegen/src/models/specs.ts');
    return { specs, defaults: {}, label: 'FLUX.1 Kontext [dev]' };
  }
  const opened = await openModel(model === 'demo' ? demoModel() : model);
  try {
    // The folder's name, not its path: the same bundle comes out wherever the model lies.
    const label = model.replace(/[\\/]+$/, '').replace(/^.*[\\/]/, '');
    return { specs: await justInTime().specs(opened), defaults: opened.defaults, label };
  } finally {
    await opened.close();
  }
}

async function save(folder: string, files: Map<string, string>): Promise<void> {
  const old = await stat(folder).catch(() => undefined);
  if (old && !(await stat(join(folder, 'manifest.json')).catch(() => undefined))) {
    throw usage(`${folder} exists and is no bundle; it will not be replaced. Give another -o DIR.`);
  }
  const fresh = `${folder}.${process.pid}.tmp`;
  try {
    for (const [path, text] of files) {
      await mkdir(dirname(join(fresh, path)), { recursive: true });
      await writeFile(join(fresh, path), text);
    }
    if (old) await rm(folder, { recursive: true });
    await rename(fresh, folder);
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true });
  } catch (cause) {
    throw usage(`${(cause as Error).message.split('\n')[0]} See kontext --help.`);
  }
}

function sizeFrom(text: string): ImageSize {
  const match = /^(\d+)x(\d+)$/.exec(text);
  const [width, height] = [Number(match?.[1]), Number(match?.[2])];
  if (match && width > 0 && height > 0 && width % 16 === 0 && height % 16 === 0) return { width, height };
  throw usage(`"${text}" is no size; write WIDTHxHEIGHT in pixels, multiples of 16, as 1024x1024.`);
}

function whole(text: string, name: string): number {
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  throw usage(`--${name} is "${text}"; it must be a whole number from 1.`);
}

const kib = (bytes: number): string => `${(bytes / 1024).toFixed(0)} KiB`;
