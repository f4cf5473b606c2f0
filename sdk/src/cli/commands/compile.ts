// `kontext compile`: programs for known GPUs and sizes, ahead of time, without a GPU and without weights.
// A stopped run leaves no half bundle: files are put in place at the end.
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import type {
  BundleManifest,
  BundleSignature,
  BundleSpecs,
  BundleStored,
} from '../../../../kernels-codegen/src/bundle/types.ts';
import type { TargetProfile } from '../../../../kernels-codegen/src/targets/types.ts';
import { throwIfAborted } from '../../../../runtime/src/errors.ts';
import { PREFERRED_KONTEXT_SIZES } from '../../host/sizes.ts';
import { type ModelDefaults, REQUEST_OPTIONS } from '../../kontext/options.ts';
import { justInTime } from '../../kontext/programs.ts';
import type { ImageSize } from '../../kontext/types.ts';
import { heldFormats } from '../../model/formats.ts';
import { openModel, type PartName } from '../../model/open.ts';
import { CACHES, controlChannelsOf, shapesFor } from '../../programs/shapes.ts';
import { signBundle } from '../../programs/signature.ts';
import { bundleFolder } from '../../programs/sources.ts';
import { diffBundles } from '../diff.ts';
import { defineCommand, usage } from '../grammar.ts';
import { headersOf } from '../model-flags.ts';
import { statusLine } from '../progress-line.ts';
import { assertReplaceable, saveBundle } from '../save-bundle.ts';
import { resolveTarget } from './targets.ts';

const QUANTIZATIONS = ['none', 'f16', 'q8', 'q4'] as const;

export const compile = defineCommand({
  summary: 'Compile programs for known GPUs and sizes ahead of time, without a GPU (docs/guide/ahead-of-time.md).',
  usage: ['--target NAME[,NAME…]|this|FILE.json --size WxH | --preferred -o DIR', '--diff A B'],
  examples: [
    'kontext compile --target apple-m,nvidia --preferred --quantization q8 -o programs',
    'kontext compile --diff old-programs programs',
  ],
  flags: {
    target: { value: 'NAME[,NAME…]', list: true, help: 'GPUs, as kontext targets lists them; this: the one at hand' },
    profile: { value: 'FILE', help: 'schedules that kontext tune measured, for the one target they were measured on' },
    size: { value: 'WxH', list: true, help: 'of pictures, multiples of 16' },
    preferred: { help: 'all sizes the model prefers' },
    reference: { value: 'WxH', list: true, help: 'of references (default: the picture’s own size)' },
    model: { value: 'PATH|demo', help: 'folder of the model (default: flux1-kontext-dev, whose sizes are known)' },
    quantization: { value: 'Q[,Q…]', help: `of ${QUANTIZATIONS.join(', ')} (default: f16)` },
    steps: { value: 'N[,N…]', help: 'denoising steps (default: the model’s)' },
    'max-sequence-length': { value: 'N', help: 'T5 tokens (default: the model’s)' },
    'lora-rank': {
      value: 'R',
      help: 'also programs with room for adapters whose ranks add up to R (rounded up to a multiple of 8)',
    },
    cache: { value: 'KIND[,KIND]', help: `also programs for requests with a cache, of ${CACHES.join(', ')}` },
    nag: { help: 'also programs for requests with a nagScale' },
    'cfg-zero': { help: 'also the program for requests with cfgZeroStar' },
    'image-to-image': { help: 'also programs for requests with context: false, which draw from the autoencoder' },
    wgsl: { help: 'the kernels as files too, for reading' },
    sign: {
      value: 'KEY.pem',
      help: 'sign the bundle: an Ed25519 private key, as openssl genpkey -algorithm ed25519 makes it',
    },
    diff: { help: 'print what differs between two bundles' },
    output: { value: 'DIR', short: 'o', help: 'folder to write; a bundle there is replaced' },
  },
  /** @throws KontextError `invalid-request`, `limit-too-small` when a program exceeds a target */
  async run({ values, words, signal }) {
    if (values.diff) {
      const [a, b] = words;
      if (a === undefined || b === undefined || words.length > 2)
        throw usage('kontext compile --diff takes two bundles: A B.');
      console.log((await diffBundles(bundleFolder(a), bundleFolder(b))).join('\n') || 'No difference.');
      return;
    }
    if (words.length > 0) throw usage(`kontext compile takes no words, but got "${words[0]}".`);
    if (values.output === undefined) throw usage('Where should the bundle go? Give -o DIR.');
    const folder = resolve(values.output);
    await assertReplaceable(folder);
    const sign = await signer(values.sign);
    const started = performance.now();
    const quantizations = (values.quantization ?? 'f16').split(',').map((name) => {
      const known = QUANTIZATIONS.find((q) => q === name);
      if (known) return known;
      throw usage(`--quantization is "${name}"; it must be of ${QUANTIZATIONS.join(', ')}.`);
    });
    const names = (values.target ?? []).flatMap((list) => list.split(','));
    if (names.length === 0) throw usage('For which GPUs? Give --target NAME[,NAME…]; kontext targets lists them.');
    const targets: TargetProfile[] = [];
    if (values.profile !== undefined && names.length > 1)
      throw usage('--profile is of one GPU: give one --target with it.');
    for (const name of names) targets.push(await resolveTarget(name, values.profile));
    const { specs, defaults, label, stored } = await specsOf(values.model ?? 'flux1-kontext-dev');
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
      caches: (values.cache?.split(',') ?? []).map((name) => {
        const known = CACHES.find((kind) => kind === name);
        if (known) return known;
        throw usage(`--cache is "${name}"; it must be of ${CACHES.join(', ')}.`);
      }),
      nag: values.nag === true,
      cfgZero: values['cfg-zero'] === true,
      imageToImage: values['image-to-image'] === true,
      controlChannels: controlChannelsOf(specs),
      loraRank: values['lora-rank'] === undefined ? undefined : whole(values['lora-rank'], 'lora-rank'),
      textTokens:
        values['max-sequence-length'] === undefined
          ? (defaults.maxSequenceLength ?? REQUEST_OPTIONS.maxSequenceLength.default!)
          : whole(values['max-sequence-length'], 'max-sequence-length'),
    });
    const { writeBundle } = await import('../../../../kernels-codegen/src/bundle/write.ts');
    const wgsl = values.wgsl === true;
    const line = statusLine(process.stderr);
    const files = await writeBundle(
      { model: label, specs, shapes, targets, quantizations, stored, wgsl, sign },
      async (done, total) => {
        line.write(`program ${done} of ${total}`);
        // A turn of the event loop, or Ctrl-C would not be heard.
        await new Promise((resolve) => setImmediate(resolve));
        throwIfAborted(signal);
      },
    ).finally(() => line.write(''));
    await saveBundle(folder, files);
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
  },
});

/** Reads and tries the key before anything is compiled: a wrong path ends in a second. */
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

async function specsOf(
  model: string,
): Promise<{ specs: BundleSpecs; defaults: ModelDefaults; label: string; stored?: BundleStored }> {
  if (model === 'flux1-kontext-dev') {
    const { FLUX1_KONTEXT_DEV: specs } = await import('../../../../kernels-codegen/src/models/specs.ts');
    return { specs, defaults: {}, label: 'FLUX.1 Kontext [dev]' };
  }
  const opened = await openModel(await headersOf(model));
  try {
    // The folder's name, not its path: the same bundle comes out wherever the model lies.
    const label = model.replace(/[\\/]+$/, '').replace(/^.*[\\/]/, '');
    const stored: BundleStored = {};
    for (const part of Object.keys(opened.parts) as PartName[]) {
      const formats = opened.parts[part].stored ?? heldFormats(opened.parts[part].weights);
      if (formats) stored[part] = formats;
    }
    return { specs: await justInTime().specs(opened), defaults: opened.defaults, label, stored };
  } finally {
    await opened.close();
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
