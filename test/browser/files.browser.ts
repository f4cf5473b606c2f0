// Layouts of models in a page: folders, single files, shards and GGUF by URL, files that the user picked, and refusals with their sentence.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type * as Sdk from '../../sdk/src/browser.ts';
import {
  gguf,
  llamaName,
  namesOnly,
  renamedTensors,
  safetensors,
  split,
  tiny,
  tinyBytes,
  tinyConfig,
  tinyConfigFiles,
  writeFiles,
} from '../support/model-files.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

let folder: string;
let server: TestServer;
let browser: Browser;
let page: Page;
const configs = { clip: tinyConfig('clip'), t5: tinyConfig('t5') };

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-page-files-'));
  const shards = split(tiny('transformer'), 2);
  const shard = (i: number) => `diffusion_pytorch_model-0000${i + 1}-of-00002.safetensors`;
  const weight_map = Object.fromEntries(
    shards.flatMap((tensors, i) => [...tensors.keys()].map((key) => [key, shard(i)])),
  );
  const prefixed = (prefix: string, part: 'transformer' | 'vae' | 'clip' | 't5') =>
    renamedTensors(tiny(part), (name) => prefix + name);
  writeFiles(folder, {
    ...Object.fromEntries(
      Object.entries(tinyConfigFiles()).flatMap(([name, text]) => [
        [`heap/${name}`, text],
        [`folders/${name}`, text],
      ]),
    ),
    'heap/flux1-kontext-dev.safetensors': tinyBytes('transformer'),
    'heap/ae.safetensors': tinyBytes('vae'),
    'heap/clip_l.safetensors': tinyBytes('clip'),
    'heap/t5xxl_fp16.safetensors': tinyBytes('t5'),
    'folders/transformer/diffusion_pytorch_model.safetensors.index.json': JSON.stringify({ weight_map }),
    [`folders/transformer/${shard(0)}`]: safetensors(shards[0]!),
    [`folders/transformer/${shard(1)}`]: safetensors(shards[1]!),
    'folders/vae/diffusion_pytorch_model.safetensors': tinyBytes('vae'),
    'folders/text_encoder/model.safetensors': tinyBytes('clip'),
    'folders/text_encoder_2/model.safetensors': tinyBytes('t5'),
    'flux.gguf': gguf(tiny('transformer'), { 'general.architecture': 'flux' }),
    't5.gguf': gguf(renamedTensors(tiny('t5'), llamaName)),
    'clip.safetensors': safetensors(renamedTensors(tiny('clip'), (name) => name.replace('text_model.', ''))),
    'all.safetensors': safetensors(
      new Map([
        ...prefixed('model.diffusion_model.', 'transformer'),
        ...prefixed('vae.', 'vae'),
        ...prefixed('text_encoders.clip_l.transformer.', 'clip'),
        ...prefixed('text_encoders.t5xxl.transformer.', 't5'),
      ]),
    ),
    'lora.safetensors': namesOnly({ 'lora_unet_double_blocks_0_img_attn_proj.lora_down.weight': [2, 2] }),
    'pointer.safetensors': 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
  });
  server = await serve(folder);
  server.mounts = { '/dist/': fileURLToPath(new URL('../../dist/', import.meta.url)) };
  browser = await launch();
  ({ page } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
  rmSync(folder, { recursive: true });
});

/** Every layout in turn; sources are addresses below the server, `picked` are fetched into Files first. */
const run = (source: string | Record<string, string>, picked = false) =>
  page.evaluate(
    async ({ source, picked, configs }) => {
      const { Kontext } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
      const address = (path: string) => new URL(path, location.href).href;
      const part = async (path: string) =>
        picked ? new File([await (await fetch(path)).blob()], path.split('/').at(-1)!) : address(path);
      try {
        const model =
          typeof source === 'string'
            ? address(source)
            : {
                ...Object.fromEntries(
                  await Promise.all(Object.entries(source).map(async ([name, path]) => [name, await part(path)])),
                ),
                configs,
              };
        const kontext = await Kontext.load(model as Sdk.ModelSource, { precision: 'f32' });
        const { latents } = await kontext.generate({
          prompt: 'a door',
          steps: 1,
          seed: 3,
          size: { width: 32, height: 32 },
          maxSequenceLength: 16,
        });
        await kontext.close();
        return { latents: [...latents[0]!] };
      } catch (error) {
        const { code, message } = error as Sdk.KontextError;
        return { code, message };
      }
    },
    { source, picked, configs },
  );

it('opens every layout, and makes the same latents from the same weights', async () => {
  const wanted = await run('/heap');
  expect(wanted).toMatchObject({ latents: expect.any(Array) });
  expect(await run('/heap/flux1-kontext-dev.safetensors')).toEqual(wanted);
  expect(await run('/folders')).toEqual(wanted);
  const { clip, ...rest } = {
    transformer: '/flux.gguf',
    vae: '/heap/ae.safetensors',
    clip: '/clip.safetensors',
    t5: '/t5.gguf',
  };
  expect(await run({ clip, ...rest })).toEqual(wanted);
  expect(await run({ clip, ...rest }, true)).toEqual(wanted);
  const index = '/folders/transformer/diffusion_pytorch_model.safetensors.index.json';
  expect(await run({ ...rest, clip, transformer: index })).toEqual(wanted);
  expect(await run({ transformer: '/all.safetensors' }, true)).toEqual(wanted);
});

it('names what it cannot use', async () => {
  const rest = { vae: '/heap/ae.safetensors', clip: '/clip.safetensors', t5: '/t5.gguf' };
  for (const picked of [false, true]) {
    expect(await run({ ...rest, transformer: '/lora.safetensors' }, picked)).toMatchObject({
      code: 'weights-invalid',
      message: expect.stringMatching(
        /lora\.safetensors is a LoRA .* needed as the transformer is .*for example flux1-kontext-dev/,
      ),
    });
    expect(await run({ ...rest, transformer: '/pointer.safetensors' }, picked)).toMatchObject({
      message: expect.stringMatching(/pointer\.safetensors is a Git LFS pointer/),
    });
    expect(
      await run({ ...rest, transformer: '/flux.gguf', clip: '/t5.gguf', t5: '/clip.safetensors' }, picked),
    ).toMatchObject({
      message: expect.stringMatching(/t5\.gguf is a T5 encoder\. What is needed as the CLIP text encoder/),
    });
  }
});
