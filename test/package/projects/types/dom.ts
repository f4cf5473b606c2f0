// The same package where the DOM is known: its names are then the real ones, and the element's events have types.
import 'kontext-webgpu/element';
import type { ImageInput } from 'kontext-webgpu/browser';
import { decodeImage, Kontext } from 'kontext-webgpu/worker';

const canvas: ImageInput = document.createElement('canvas');
export const pixels = decodeImage(canvas);

const editor = document.querySelector('kontext-editor')!;
editor.strings = { edit: 'Go', left: (seconds) => `${seconds} s` };
editor.addEventListener('kontext-result', ({ detail }) => console.log(detail.seed, detail.prompt.length));
editor.addEventListener('kontext-progress', ({ detail }) => detail.type === 'step' && console.log(detail.stepMs));
// @ts-expect-error: a result has no such field.
editor.addEventListener('kontext-result', ({ detail }) => console.log(detail.sead));

export async function load(stop: AbortController, blob: Blob): Promise<ImageBitmap> {
  const kontext = await Kontext.load(new URL('/models/', location.href), {
    signal: stop.signal,
    worker: new Worker('/w.js'),
  });
  const { image } = await kontext.edit({ image: blob, prompt: 'night', seed: undefined });
  return createImageBitmap(new ImageData(image.data, image.width, image.height));
}
