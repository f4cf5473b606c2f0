// Public layouts of the model in a page: a folder over HTTP, and parts given one by one as Files, safetensors and GGUF.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type * as Sdk from '../../sdk/src/browser.ts';
import { FIELD_BOUND, FIELD_EDIT, TINY_LAYOUTS, type TinyLayout, worstOf } from '../support/tiny-layouts.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

/** Each costs a page a minute on a software adapter; the command line opens all of them. */
const LAYOUTS = TINY_LAYOUTS.slice(0, 4);

let folder: string;
let server: TestServer;
let browser: Browser;
let page: Page;
let problems: string[];

const placeOf = (layout: TinyLayout): string => `model-${TINY_LAYOUTS.indexOf(layout)}`;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-page-files-'));
  for (const layout of LAYOUTS) layout.write(join(folder, placeOf(layout)));
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
    const { clip, t5 } = layout.configs();
    const given =
      typeof source === 'string'
        ? { url: at(source) }
        : {
            parts: Object.fromEntries(Object.entries(source).map(([part, name]) => [part, at(name)])),
            configs: { clip, t5 },
          };
    expect(worstOf(await edited(layout, given), layout.expected())).toBeLessThan(FIELD_BOUND);
    expect(problems).toEqual([]);
  });
});
