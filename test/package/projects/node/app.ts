// Every entry with types, used as its guide says; the project's own compiler must find them.
import { type EditResult, Kontext, type KontextError, type PixelImage } from 'kontext-webgpu';
import { cachedFiles, type LoadOptions } from 'kontext-webgpu/browser';
import { KontextEditor } from 'kontext-webgpu/element';
import { Kontext as Standalone } from 'kontext-webgpu/standalone';
import { Kontext as InWorker, type Session } from 'kontext-webgpu/worker';

export async function edit(model: string): Promise<PixelImage> {
  const kontext = await Kontext.load(model, { quantization: 'q4' });
  const result: EditResult = await kontext.edit({ image: 'in.png', prompt: 'make it night', seed: 7 });
  // @ts-expect-error: a prompt is text; were the types lost, this would pass as `any`.
  await kontext.edit({ image: 'in.png', prompt: 7 });
  return result.image;
}

export async function page(options: LoadOptions, signal: AbortSignal): Promise<Session> {
  await Standalone.load(cachedFiles('https://models.example/kontext/'), options);
  const kontext = await InWorker.load('/models/kontext/', { signal });
  const editor = new KontextEditor();
  await editor.open(new Blob([]));
  return kontext.session('/cat.png');
}

export const codeOf = (error: KontextError): string => error.code;
