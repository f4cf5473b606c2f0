// What is fuzzed: each reader of something from outside, with sound inputs to start from.
// An input may be taken or refused; refused it must be with a KontextError, within a second.
import { writeBundle } from '../../../kernels-codegen/src/bundle/write.ts';
import { compile } from '../../../kernels-codegen/src/compile.ts';
import {
  clipSpecFromConfig,
  fluxSpecFromConfig,
  t5SpecFromConfig,
  vaeSpecFromConfig,
} from '../../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { validateProgram } from '../../../runtime/src/program/check.ts';
import type { WeightRequest } from '../../../runtime/src/program/types.ts';
import { memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { openSafetensors, openShardedSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { checkLock } from '../../../runtime/src/weights/integrity/lock.ts';
import { planChunks } from '../../../runtime/src/weights/plan.ts';
import { urlBytes } from '../../../runtime/src/weights/url.ts';
import { withJpegExif, withWebpExif } from '../../../sdk/src/image/metadata/containers.ts';
import { writeExif } from '../../../sdk/src/image/metadata/exif.ts';
import { readPngText, writePngText } from '../../../sdk/src/image/metadata/png-text.ts';
import { settingsIn } from '../../../sdk/src/image/metadata/settings.ts';
import { checkRequest } from '../../../sdk/src/kontext/request.ts';
import { readSession } from '../../../sdk/src/kontext/session-file.ts';
import { checkDefaults, scheduleOf } from '../../../sdk/src/model/configs.ts';
import { checkSpecBounds } from '../../../sdk/src/model/spec-bounds.ts';
import { readManifest } from '../../../sdk/src/programs/bundle.ts';
import { checkManifest } from '../../../sdk/src/programs/manifest.ts';
import { verifyBundle } from '../../../sdk/src/programs/signature.ts';
import { sha256 } from '../../support/tampered-bundle.ts';
import { affineTwice, sumOfWeights } from '../../support/tiny-program.ts';
import { mutateBytes, mutateJson, ODD_VALUES, pick, type Random } from '../mutate.ts';
import { adapterInputs } from './adapters.ts';
import { ggufInputs } from './gguf.ts';
import { tableInputs } from './tables.ts';

export interface Fuzzed {
  name: string;
  /** Takes one changed input. @throws KontextError when it is refused */
  run(random: Random): unknown;
}

const encoder = new TextEncoder();
const text = (value: unknown) => JSON.stringify(value);

/** Sound inputs are built once. */
export async function inputs(): Promise<Fuzzed[]> {
  const tensors = {
    __metadata__: { format: 'pt' },
    'blocks.0.weight': { dtype: 'F32', shape: [2, 4], data_offsets: [0, 32] },
    'blocks.0.bias': { dtype: 'BF16', shape: [4], data_offsets: [32, 40] },
    scalar: { dtype: 'F8_E4M3', shape: [], data_offsets: [40, 41] },
  };
  const file = safetensors(text(tensors), 41);
  const index = text({ metadata: { total_size: 41 }, weight_map: { a: 'x-1.safetensors', b: 'x-2.safetensors' } });
  const specs = {
    transformer: fluxSpecFromConfig(FLUX),
    t5: t5SpecFromConfig(T5),
    clip: clipSpecFromConfig(CLIP),
    vae: vaeSpecFromConfig(VAE),
  };
  const bundle = await writeBundle({
    model: 'fuzzed',
    specs,
    shapes: [{ component: 'euler', tokens: 4, channels: 64 }],
    targets: [targetByName('baseline')],
    quantizations: ['none'],
  });
  const manifest = bundle.get('manifest.json')!;
  const png = writePngText(PNG, 'text of a picture');
  const settingsFiles = pictureFiles();
  const request: WeightRequest = { name: 'w', format: 'f16', shape: [4, 6], layout: 'matrix', bytes: 48 };
  const lock = text({
    version: 1,
    pieceBytes: 4194304,
    files: { 'vae/x.safetensors': { size: 5, sha256: ['0'.repeat(64)] } },
  });

  return [
    { name: 'safetensors bytes', run: (random) => openSafetensors(memoryBytes(mutateBytes(random, file))) },
    {
      name: 'safetensors header',
      run: (random) => openSafetensors(memoryBytes(safetensors(text(mutateJson(random, text(tensors))) ?? 'null', 41))),
    },
    {
      name: 'safetensors index',
      run: (random) => openShardedSafetensors(mutateJson(random, index), async () => memoryBytes(file)),
    },
    {
      name: 'configs',
      run(random) {
        const [config, read] = pick(random, CONFIGS);
        const changed = mutateJson(random, config) as Record<string, unknown>;
        const part = read(isObject(changed) ? changed : {});
        checkSpecBounds({ ...specs, ...part }, 'fuzzed', 'weights-invalid');
      },
    },
    {
      name: 'scheduler and defaults',
      run(random) {
        const changed = mutateJson(random, random() < 0.5 ? SCHEDULER : DEFAULTS);
        if (!isObject(changed)) return;
        if (random() < 0.5) scheduleOf(changed);
        else checkDefaults(changed, 'fuzzed');
      },
    },
    { name: 'manifest structure', run: (random) => checkManifest(mutateJson(random, manifest), 'fuzzed') },
    {
      name: 'manifest with right digest',
      async run(random) {
        const { digest: _, ...changed } = { ...(mutateJson(random, manifest) as object) } as Record<string, unknown>;
        const digest = sha256(text({ ...changed, digest: '' }));
        await readManifest({ label: 'fuzzed', read: async () => ({ ...changed, digest }) });
      },
    },
    {
      name: 'signatures',
      run: (random) =>
        verifyBundle('fuzzed', 'x', mutateJson(random, SIGNATURE), [pick(random, [KEY, ...ODD_VALUES]) as string]),
    },
    { name: 'programs', run: (random) => validateProgram(mutateJson(random, pick(random, PROGRAMS))) },
    {
      name: 'weight plans',
      run(random) {
        const changed = mutateJson(random, text(request)) as WeightRequest;
        // Programs are validated before weights are planned.
        const program = { ...JSON.parse(PROGRAMS[1]!), weights: [changed], dispatches: [] };
        validateProgram(program);
        const shape = mutateJson(random, '[4,6]');
        if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && n >= 0) || shape.length > 16)
          return;
        const bytes = shape.reduce((product: number, n: number) => product * n, 1) * 4;
        planChunks(changed, { dtype: 'F32', type: F32, shape, bytes } as never, 'fuzzed', 1 << 20);
      },
    },
    { name: 'PNG text', run: (random) => readPngText(mutateBytes(random, png)) },
    {
      name: 'PNG text written',
      run: (random) => writePngText(mutateBytes(random, PNG), 'x'.repeat(Math.floor(random() * 9))),
    },
    { name: 'settings of pictures', run: (random) => settingsIn(mutateBytes(random, pick(random, settingsFiles))) },
    {
      name: 'settings as JSON',
      run: (random) => settingsIn(writePngText(PNG, text(mutateJson(random, SETTINGS)) ?? 'null')),
    },
    {
      name: 'settings as text',
      run(random) {
        const changed = new TextDecoder().decode(mutateBytes(random, encoder.encode(PARAMETERS_TEXT)));
        return settingsIn(writePngText(PNG, changed, 'parameters'));
      },
    },
    {
      name: 'session file',
      run: (random) => readSession(text(mutateJson(random, SESSION)) ?? 'null'),
    },
    {
      name: 'Content-Range answers',
      async run(random) {
        const headers = new TextDecoder()
          .decode(mutateBytes(random, encoder.encode('bytes 0-0/64')))
          .replaceAll(/[^\x20-\x7e]/g, '?');
        const status = pick(random, [200, 206, 206, 206, 204, 304, 404, 416]);
        const answer = () =>
          new Response([204, 304].includes(status) ? null : mutateBytes(random, file).slice(0, 64), {
            status,
            headers: { 'content-range': headers, etag: pick(random, ['"a"', 'W/"a"', '', '"b"']) },
          });
        const source = await urlBytes('http://host/x.safetensors', {
          fetch: async () => answer(),
          attempts: 1,
        } as never);
        await source.read(0, Math.min(8, source.size));
      },
    },
    { name: 'locks', run: (random) => checkLock(object(mutateJson(random, lock)), 'fuzzed') },
    {
      name: 'requests',
      run(random) {
        const given = { ...REQUEST } as Record<string, unknown>;
        for (let changes = 1 + Math.floor(random() * 2); changes > 0; changes--) {
          given[pick(random, Object.keys(REQUEST))] = pick(random, ODD_VALUES);
        }
        checkRequest(given as never);
      },
    },
    ...ggufInputs(),
    ...adapterInputs(),
    ...(await tableInputs()),
  ];
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
/** What `readJson` guarantees its callers. */
const object = (value: unknown) => (isObject(value) ? value : {});

function safetensors(header: string, data: number): Uint8Array<ArrayBuffer> {
  const bytes = encoder.encode(header);
  const file = new Uint8Array(8 + bytes.length + data);
  new DataView(file.buffer).setBigUint64(0, BigInt(bytes.length), true);
  file.set(bytes, 8);
  return file;
}

const FLUX = {
  in_channels: 64,
  num_layers: 2,
  num_single_layers: 4,
  attention_head_dim: 64,
  num_attention_heads: 3,
  joint_attention_dim: 64,
  pooled_projection_dim: 64,
  axes_dims_rope: [8, 28, 28],
  guidance_embeds: true,
};
const T5 = {
  feed_forward_proj: 'gated-gelu',
  vocab_size: 32128,
  d_model: 64,
  d_kv: 16,
  num_heads: 4,
  d_ff: 192,
  num_layers: 2,
};
const CLIP = {
  vocab_size: 49408,
  hidden_size: 64,
  num_attention_heads: 4,
  intermediate_size: 192,
  num_hidden_layers: 2,
};
const VAE = {
  block_out_channels: [32, 32, 64, 128],
  layers_per_block: 1,
  latent_channels: 16,
  norm_num_groups: 8,
  scaling_factor: 0.36,
};
type Reader = (config: Readonly<Record<string, unknown>>) => object;
const CONFIGS: [string, Reader][] = [
  [text(FLUX), (config) => ({ transformer: fluxSpecFromConfig(config) })],
  [text(T5), (config) => ({ t5: t5SpecFromConfig(config) })],
  [text(CLIP), (config) => ({ clip: clipSpecFromConfig(config) })],
  [text(VAE), (config) => ({ vae: vaeSpecFromConfig(config) })],
];
const SCHEDULER = text({
  use_dynamic_shifting: true,
  base_shift: 0.5,
  max_shift: 1.15,
  base_image_seq_len: 256,
  shift: 3,
});
const DEFAULTS = text({ preferredSizes: [[64, 64]], maxSequenceLength: 32, steps: 4 });
const PROGRAMS = [
  text(affineTwice(64)),
  text(sumOfWeights(64, 3)),
  text(compile({ component: 'euler', tokens: 4, channels: 64, target: targetByName('baseline') })),
];
const SIGNATURE = text({ algorithm: 'Ed25519', publicKey: btoa('k'.repeat(32)), signature: btoa('s'.repeat(64)) });
const KEY = btoa('k'.repeat(32));
const F32 = { name: 'F32', elements: 1, bytes: 4 };
const REQUEST = {
  image: { width: 16, height: 16, data: new Uint8Array(1024) },
  prompt: 'x',
  negativePrompt: 'y',
  trueCfgScale: 2,
  steps: 4,
  guidance: 2.5,
  seed: 1,
  size: { width: 64, height: 64 },
  maxArea: 4096,
  maxSequenceLength: 32,
  images: 1,
  references: [],
  autoResize: true,
  latents: undefined,
  output: 'image',
  preview: { every: 2 },
  signal: undefined,
  onProgress: undefined,
};

/** One pixel, deflated. */
const PIXEL = { $: 'pixels', width: 1, height: 1, data: 'eJz7/+//fwAJ9wP8' };
const TURN = {
  parent: 0,
  prompt: 'x',
  resolved: {},
  options: { seed: { $: 'bigint', data: '7' }, mask: PIXEL },
  image: PIXEL,
};
const SESSION = text({ format: 'kontext-session', version: 2, first: PIXEL, turns: [TURN, TURN], position: 1 });
const SETTINGS = text({
  software: 'kontext-webgpu',
  prompt: 'x',
  seed: '7',
  options: { width: 64, height: 64, steps: 4, guidance: 2.5, cache: { kind: 'taylor', order: 1 }, sigmas: [1, 0.5] },
});
const PARAMETERS_TEXT =
  'a cat\nNegative prompt: dog\nSteps: 4, Sampler: DPM++ 2M, CFG scale: 2, Seed: 5, Size: 64x64, Model: "a, b", Eta: 1';

/** One of each kind that settings are read from. */
function pictureFiles(): Uint8Array[] {
  const exif = writeExif({ comment: PARAMETERS_TEXT, own: SETTINGS });
  const jpeg = Uint8Array.of(0xff, 0xd8, 0xff, 0xdb, 0, 4, 0, 0, 0xff, 0xda, 0, 2, 0xff, 0xd9);
  const webp = encoder.encode('RIFF\u0016\0\0\0WEBPVP8 \u000a\0\0\0abcdefghij');
  return [
    writePngText(writePngText(PNG, SETTINGS), PARAMETERS_TEXT, 'parameters'),
    withJpegExif(jpeg, exif),
    withWebpExif(webp, exif),
  ];
}

/** The smallest PNG: one grey pixel. */
const PNG = Uint8Array.from(
  atob('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=='),
  (char) => char.charCodeAt(0),
);
