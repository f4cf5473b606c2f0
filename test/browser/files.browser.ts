// Public layouts of the model in a page: parts given one by one as Files, folders and single files over HTTP, a packed folder.
// Four of them in every run, for each costs a software adapter up to a minute; all with KONTEXT_LAYOUTS=all.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../runtime/src/gpu/open.ts';
import type * as Sdk from '../../sdk/src/browser.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { packModel } from '../../sdk/src/model/pack.ts';
import {
  distanceOf,
  FIELD_BOUND,
  FIELD_EDIT,
  TINY_LAYOUTS,
  type TinyLayout,
  worstOf,
} from '../support/tiny-layouts.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

/** The command line opens all of them in every run. */
const LAYOUTS = process.env.KONTEXT_LAYOUTS === 'all' ? TINY_LAYOUTS : TINY_LAYOUTS.slice(0, 4);

let folder: string;
let server: TestServer;
let browser: Browser;
let page: Page;
let problems: string[];

const placeOf = (layout: TinyLayout): string => `model-${TINY_LAYOUTS.indexOf(layout)}`;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-page-files-'));
  for (const layout of LAYOUTS) layout.write(join(folder, placeOf(layout)));
  const gpu = await openDevice();
  const model = await openModel(join(folder, placeOf(TINY_LAYOUTS[0]!)));
  await packModel(model, gpu, join(folder, 'packed'), { quantization: 'f16' });
  await model.close();
  gpu.destroy();
  server = await serve(folder);
  server.mounts = {
    '/dist/': join(import.meta.dirname, '../../dist/'),
    '/input/': join(FIELD_EDIT.image, '../'),
  };
  browser = await launch();
  ({ page, problems } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
  rmSync(folder, { recursive: true });
});

interface Given {
  /** Address of a folder or file. */
  url?: string;
  /** Addresses of parts that the page makes Files of. */
  parts?: Record<string, string>;
  configs?: object;
}

/** Loads and edits in the page. @returns the last latents, and how the file of the transformer is called */
function edited({ edit }: Pick<TinyLayout, 'edit'>, given: Given) {
  return page.evaluate(
    async ({ given, request }) => {
      const { Kontext } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
      const { url, parts, configs } = given;
      let source: Parameters<typeof Kontext.load>[0] = url ?? '';
      if (parts) {
        const files: Record<string, File> = {};
        for (const [part, address] of Object.entries(parts)) {
          files[part] = new File([await (await fetch(address)).blob()], address.split('/').at(-1)!);
        }
        source = { ...files, configs } as unknown as Sdk.BflFiles;
      }
      const kontext = await Kontext.load(source, { precision: 'f32' });
      try {
        const { latents } = await kontext.edit(request);
        return [...latents[0]!];
      } finally {
        await kontext.close();
      }
    },
    { given, request: { ...edit, image: '/input/input_1.png', autoResize: false } },
  );
}

describe('a page opens', () => {
  it.each(LAYOUTS.map((layout) => [layout.name, layout] as const))('%s', async (_, layout) => {
    const { source } = layout;
    const at = (name: string) => `${server.url}/${placeOf(layout)}/${name}`;
    const parts =
      typeof source !== 'string'
        ? Object.fromEntries(Object.entries(source).map(([part, name]) => [part, at(name)]))
        : source === 'checkpoint.safetensors'
          ? { transformer: at(source) }
          : undefined;
    const { clip, t5, transformer } = layout.configs();
    const given = parts
      ? { parts, configs: source === 'checkpoint.safetensors' ? { clip, t5, transformer } : { clip, t5 } }
      : { url: at(source as string) };
    expect(worstOf(await edited(layout, given), layout.expected())).toBeLessThan(FIELD_BOUND);
    expect(problems).toEqual([]);
  });

  it('a packed folder, and asks for nothing but what is in it', async () => {
    const layout = TINY_LAYOUTS[0]!;
    server.log.length = 0;
    const latents = await edited(layout, { url: `${server.url}/packed/` });
    expect(distanceOf(latents, layout.expected())).toBeLessThan(0.01);
    const asked = server.log.map(({ path }) => path).filter((path) => !/^\/(dist|input)\//.test(path));
    expect(asked.length).toBeGreaterThan(5);
    expect(asked.every((path) => path.startsWith('/packed/'))).toBe(true);
    expect(problems).toEqual([]);
  });

  it('what is none is told by name, without a request for other files', async () => {
    const told = await page.evaluate(async () => {
      const { Kontext } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
      const file = new File(['<!doctype html><html><body>Sign in</body></html>'], 'flux1-kontext-dev.safetensors');
      return Kontext.load({ transformer: file }).then(
        () => undefined,
        ({ code, message }: Sdk.KontextError) => ({ code, message }),
      );
    });
    expect(told).toMatchObject({ code: 'weights-invalid', message: expect.stringContaining('is a web page') });
  });
});
