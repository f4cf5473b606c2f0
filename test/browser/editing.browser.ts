// Editing features in real Chromium: one case of each kind of fixture against the reference, in the page; and masks that keep every byte,
// samplers, caches, choosing and sessions in the page and in a worker.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type * as InPage from '../../sdk/src/browser.ts';
import type { HostExports } from '../../sdk/src/host/exports.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { worstDifference } from '../support/pipeline-context.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const fixtures = `${root}test/fixtures/`;
const tokenizers = `${root}examples/demo-model/model/`;

let server: TestServer;
let browser: Browser;
let page: Page;
let problems: string[];

beforeAll(async () => {
  server = await serve(root);
  // Each model is the reference pipeline with folders of its own; the more particular mounts come first.
  for (const [name, own] of Object.entries({
    inpaint: [],
    fill: ['transformer'],
    schnell: ['transformer', 'scheduler'],
  })) {
    for (const part of own) server.mounts[`/models/${name}/${part}/`] = `${fixtures}pipeline-${name}/${part}/`;
    for (const part of ['tokenizer', 'tokenizer_2'])
      server.mounts[`/models/${name}/${part}/`] = `${tokenizers}${part}/`;
    server.mounts[`/models/${name}/`] = `${fixtures}pipeline/model/`;
  }
  server.mounts['/fixtures/'] = fixtures;
  browser = await launch();
  ({ page, problems } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

/** What a model gives for a request whose pictures are paths below the fixtures. */
async function run(model: string, request: Record<string, unknown>) {
  const answer = await page.evaluate(
    async ({ model, request }) => {
      const { Kontext } = (await importModule('/dist/browser/kontext.js')) as typeof InPage;
      const kontext = await Kontext.load(`/models/${model}/`, { precision: 'f32', cache: false });
      try {
        const { image, latents, skipped } = await ('image' in request
          ? kontext.edit(request as unknown as InPage.EditRequest)
          : kontext.generate(request as unknown as InPage.GenerateRequest));
        const { width, height, data } = image;
        return { image: { width, height, data: [...data] }, latents: [...latents[0]!], skipped };
      } finally {
        await kontext.close();
      }
    },
    { model, request },
  );
  const { width, height, data } = answer.image;
  return { ...answer, image: { width, height, data: new Uint8ClampedArray(data) } };
}

const meta = (fixture: string) => JSON.parse(readFileSync(`${fixtures}${fixture}/meta.json`, 'utf8'));

/** The last latents of a run, and its picture. */
async function expectReference(result: Awaited<ReturnType<typeof run>>, fixture: string, name: string) {
  const all = floatTensor(readSafetensors(`${fixtures}${fixture}/${name}.safetensors`), 'mid.latents_after_step');
  expect(worstDifference(result.latents, all.subarray(all.length - result.latents.length))).toBeLessThan(1e-3);
  const decibels = psnr(result.image, await decodeImage(`${fixtures}${fixture}/${name}.png`, 'reference'));
  console.log(`${fixture} ${name}: ${decibels.toFixed(1)} dB`);
  expect(decibels).toBeGreaterThan(55);
}

describe('as the reference', () => {
  it('inpaints', async () => {
    const a = meta('pipeline-inpaint').runs.inpaint.arguments;
    const result = await run('inpaint', {
      image: `/fixtures/pipeline-inpaint/${a.image_file}`,
      mask: `/fixtures/pipeline-inpaint/${a.mask_image_file}`,
      maskMode: 'reference',
      prompt: a.prompt,
      steps: a.num_inference_steps,
      strength: a.strength,
      guidance: a.guidance_scale,
      maxSequenceLength: a.max_sequence_length,
      seed: a.seeds[0],
      autoResize: false,
    });
    await expectReference(result, 'pipeline-inpaint', 'inpaint');
  });

  it('fills with FLUX.1 Fill', async () => {
    const a = meta('pipeline-fill').runs.fill.arguments;
    const result = await run('fill', {
      image: `/fixtures/pipeline-fill/${a.image_file}`,
      mask: `/fixtures/pipeline-fill/${a.mask_image_file}`,
      maskMode: 'reference',
      prompt: a.prompt,
      size: { width: a.width, height: a.height },
      steps: a.num_inference_steps,
      strength: a.strength,
      guidance: a.guidance_scale,
      maxSequenceLength: a.max_sequence_length,
      seed: a.seeds[0],
    });
    await expectReference(result, 'pipeline-fill', 'fill');
  });

  it.each(['t2i', 'custom_sigmas'])('generates with FLUX.1 [schnell]: %s', async (name) => {
    const a = meta('pipeline-schnell').runs[name].arguments;
    const result = await run('schnell', {
      prompt: [a.prompt].flat()[0],
      ...(a.sigmas === undefined ? { steps: a.num_inference_steps } : { sigmas: a.sigmas }),
      maxSequenceLength: a.max_sequence_length,
      size: { width: a.width, height: a.height },
      seed: a.seeds[0],
    });
    await expectReference(result, 'pipeline-schnell', name);
  });

  it('reuses steps where diffusers does', async () => {
    const { arguments: all, runs } = meta('caching');
    const name = 'first_block_0.58';
    const a = all.base;
    const result = await run('inpaint', {
      image: `/fixtures/pipeline/${a.image_file}`,
      prompt: a.prompt,
      steps: a.num_inference_steps,
      guidance: a.guidance_scale,
      maxSequenceLength: a.max_sequence_length,
      size: { width: a.width, height: a.height },
      autoResize: false,
      seed: a.seeds[0],
      cache: { kind: 'first-block', threshold: runs[name].config.threshold },
    });
    const tensors = readSafetensors(`${fixtures}caching/io.safetensors`);
    const latents = floatTensor(tensors, `${name}.mid.latents_after_step`);
    const last = latents.subarray(latents.length - result.latents.length);
    expect(worstDifference(result.latents, last)).toBeLessThan(1e-3);
    expect(result.skipped).toBe(runs[name].single_block_executed_per_call.filter((ran: number) => ran === 0).length);
  });
});

it('has the schedules of diffusers to the last bit', async () => {
  const seen = await page.evaluate(async () => {
    const { instance } = await WebAssembly.instantiateStreaming(fetch('/dist/browser/kontext.wasm'));
    const host = instance.exports as unknown as HostExports & { memory: WebAssembly.Memory };
    const cases = (await (await fetch('/fixtures/schedules/diffusers.json')).json()) as {
      scheduler: string;
      image_seq_len: number;
      num_steps: number;
      sigmas: number[];
    }[];
    const wrong = cases.filter(({ scheduler, image_seq_len: tokens, num_steps: steps, sigmas }) => {
      host.reset();
      const out = host.scratch(4 * (steps + 1));
      host.linearSigmas(out, steps);
      if (scheduler === 'dev') host.shiftExponential(out, steps, host.dynamicMu(tokens, 256, 4096, 0.5, 1.15));
      const made = [...new Float32Array(host.memory.buffer, out, steps), 0];
      return made.length !== sigmas.length || made.some((sigma, i) => sigma !== sigmas[i]);
    });
    return { cases: cases.length, wrong };
  });
  expect(seen.cases).toBeGreaterThan(100);
  expect(seen.wrong).toEqual([]);
});

describe.each([
  ['in the page', '/dist/browser/kontext.js'],
  ['in a worker', '/dist/browser/client.js'],
])('%s', (_, script) => {
  it('a mask keeps every byte outside it, transparency too, with a sampler and a cache', async () => {
    const seen = await page.evaluate(async (script) => {
      const { Kontext } = (await importModule(script)) as typeof InPage;
      const kontext = await Kontext.load('/examples/demo-model/model');
      globalThis.engines = { ...globalThis.engines, [script]: kontext };
      const [width, height] = [90, 70];
      const data = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => (i * 40503) >> 5);
      const grey = new Uint8ClampedArray(4 * width * height).fill(255);
      const white = (i: number) => (i >> 2) % width > 30 && i > 2 * width * height;
      for (let i = 0; i < grey.length; i++) if (i % 4 < 3) grey[i] = white(i) ? 255 : 0;
      const source = new Uint8ClampedArray(data);
      const { image, skipped, options } = await kontext.edit({
        image: { width, height, data },
        mask: { width, height, data: grey },
        prompt: 'make the background blue',
        steps: 3,
        seed: 1,
        sampler: 'res_multistep',
        cache: { kind: 'first-block', threshold: 10 },
      });
      let [outside, inside] = [0, 0];
      for (let i = 0; i < source.length; i++) {
        if (image.data[i] === source[i]) continue;
        if (white(i)) inside++;
        else outside++;
      }
      return { size: [image.width, image.height], outside, changed: inside > 500, skipped, sampler: options.sampler };
    }, script);
    expect(seen).toEqual({ size: [90, 70], outside: 0, changed: true, skipped: 2, sampler: 'res_multistep' });
  });

  it('chooses among variants with a function of the page', async () => {
    const seen = await page.evaluate(async (script) => {
      const kontext = engines[script]!;
      const data = new Uint8ClampedArray(4 * 64 * 64).fill(200);
      const request = { image: { width: 64, height: 64, data }, prompt: 'x', steps: 2, seed: 3 };
      const sizes: number[] = [];
      const choose = (previews: readonly { width: number }[]) => {
        sizes.push(...previews.map(({ width }) => width));
        return [2, 0];
      };
      const some = await kontext.edit({ ...request, variants: 3, variantSteps: 1, choose });
      const alone = await kontext.edit({ ...request, seed: 5 });
      const same = some.images[0]!.data.every((value, i) => value === alone.image.data[i]);
      const refused = kontext.edit({ ...request, variants: 2, choose: () => Promise.reject(new Error('no')) });
      const error = await refused.catch((error: Error) => String(error.message));
      return { sizes, seeds: some.seeds, same, told: String(error).includes('no') };
    }, script);
    expect(seen).toEqual({ sizes: [8, 8, 8], seeds: [5, 3], same: true, told: true });
  });

  it('a session branches, travels inside a PNG, and replays to the same bytes', async () => {
    const seen = await page.evaluate(async (script) => {
      const kontext = engines[script]!;
      const data = new Uint8ClampedArray(4 * 64 * 64).fill(200);
      const session = kontext.session({ width: 64, height: 64, data });
      await session.edit('make the background blue', { steps: 1, seed: 1 });
      session.undo();
      await session.edit('make the background pink', { steps: 1, seed: 2 });
      const imported = await session.import(await session.export('png'));
      const again = await imported.replay();
      const same = again.turns.every(({ image }, i) =>
        image.data.every((value, at) => value === session.turns[i]!.image.data[at]),
      );
      const thumbnail = await createImageBitmap(new Blob([await again.thumbnail()]));
      await kontext.close();
      return { same, ways: again.branches(0).length, position: again.position, thumbnail: thumbnail.width };
    }, script);
    expect(seen).toEqual({ same: true, ways: 2, position: 2, thumbnail: 64 });
    expect(problems).toEqual([]);
  });
});
