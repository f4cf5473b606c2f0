// Puts a <kontext-editor> with a made-up engine into a blank page: its face can be tested without a GPU, and in any state.
// The functions here run in the page.
import type { Page } from 'playwright-core';
import type { KontextEditor } from '../../../sdk/src/element/element.ts';
import type { EditRequest, EditResult, ProgressEvent } from '../../../sdk/src/kontext/types.ts';

declare global {
  var editor: KontextEditor;
  /** Events to send before an edit's end, and whether it ends. */
  var script: { events?: ProgressEvent[]; hangs?: boolean; fails?: string; truncated?: boolean };
  var requests: EditRequest[];
  function picture(width: number, height: number, hue: number): EditRequest['image'] & object;
}

/** A blank page with an empty editor in its body, as the guide's own snippet has it. */
export async function openEditor(page: Page, server: string, german = false): Promise<void> {
  await page.goto(`${server}/blank.html`);
  await page.evaluate(async (german) => {
    document.documentElement.style.colorScheme = 'light dark';
    // The framed cross shows at a look whether anything is cut off.
    globalThis.picture = (width, height, hue) => {
      const context = new OffscreenCanvas(width, height).getContext('2d')!;
      context.fillStyle = `hsl(${hue} 60% 60%)`;
      context.fillRect(0, 0, width, height);
      context.lineWidth = Math.max(1, Math.min(width, height) / 40);
      context.strokeRect(0, 0, width, height);
      context.beginPath();
      for (const [x, y] of [
        [0, 0],
        [width, height],
      ] as const) {
        context.moveTo(x, y);
        context.lineTo(width - x, height - y);
        context.moveTo(width - x, y);
        context.lineTo(x, height - y);
      }
      context.stroke();
      return { width, height, data: context.getImageData(0, 0, width, height).data };
    };
    await importModule('/dist/browser/element.js');
    globalThis.script = {};
    globalThis.requests = [];
    globalThis.editor = document.createElement('kontext-editor');
    editor.engine = {
      async edit(request: EditRequest) {
        requests.push(request);
        for (const event of script.events ?? []) request.onProgress?.(event);
        if (script.fails) throw new Error(script.fails);
        if (script.hangs) {
          await new Promise((_, reject) =>
            request.signal?.addEventListener('abort', () => reject(new Error('stopped'))),
          );
        }
        const { width, height } = request.image as { width: number; height: number };
        const image = picture(width, height, requests.length * 70);
        const truncated = script.truncated ?? false;
        return { image, images: [image], timings: { totalMs: 12_345 }, truncated } as unknown as EditResult;
      },
    } as unknown as NonNullable<KontextEditor['engine']>;
    if (german) {
      const { german } = (await importModule(
        '/dist/browser/strings-de.js',
      )) as typeof import('../../../sdk/src/element/strings-de.ts');
      editor.strings = german;
    }
    document.body.append(editor);
  }, german);
}
