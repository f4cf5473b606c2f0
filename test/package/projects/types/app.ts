// An app whose compiler knows nothing but ES2022, as strict as it can be: no DOM, no @types/node.
import { type EditResult, type ImageInput, Kontext, KontextError, type PixelImage, type Session } from 'kontext-webgpu';
import { cachedFiles, Kontext as InPage, type LoadOptions, toBlob, urlFiles } from 'kontext-webgpu/browser';
import { german } from 'kontext-webgpu/strings/de';
import { Kontext as InWorker, type WorkerOptions } from 'kontext-webgpu/worker';

type IsAny<T> = 0 extends 1 & T ? true : false;
/** Where a name of the platform is lost, the whole union becomes any. */
export const whole: [IsAny<ImageInput>, IsAny<LoadOptions['signal']>, IsAny<EditResult>] = [false, false, false];

export async function edit(model: string, seed?: number): Promise<PixelImage> {
  await using kontext = await Kontext.load(model, { quantization: 'q4' });
  // What was not given may be passed on as undefined.
  const { image } = await kontext.edit({
    image: 'in.png',
    prompt: 'night',
    seed,
    signal: undefined,
    onProgress: undefined,
  });
  // @ts-expect-error: a number is no picture.
  await kontext.edit({ image: 7, prompt: 'night' });
  // @ts-expect-error: there is no such option.
  await kontext.edit({ image, prompt: 'night', strenght: 1 });
  return image;
}

export async function page(options: WorkerOptions): Promise<Session> {
  const kontext = await InWorker.load('/models/kontext/', options);
  const here = await InPage.load(cachedFiles('https://models.example/'), { memory: 'streamed' });
  await here.close();
  const file = await urlFiles('https://models.example/').open('kontext.json');
  await file?.close();
  const blob = await toBlob({ width: 1, height: 1, data: new Uint8ClampedArray(4) });
  const size: number = blob.size;
  return size > 0 ? kontext.session('/cat.png') : kontext.session(new Uint8Array(size));
}

export const code = (error: unknown): string => (error instanceof KontextError ? error.code : german.locale);
