// What `kontext edit` and `kontext generate` share: flags about model, output and report, and the way from request to file.
// Nothing is written before all of it is there; a cancelled or failed run leaves no file behind.
import { rm } from 'node:fs/promises';
import { extname } from 'node:path';
import { formatOf, saveImage } from '../image/node.ts';
import type { LoadOptions } from '../kontext/kontext.ts';
import type { EditRequest, EditResult, GenerateRequest } from '../kontext/types.ts';
import { demoModel } from '../model/demo.ts';
import { Kontext } from '../node.ts';
import { type Flags, type FlagValues, usage } from './grammar.ts';
import { writeLatents } from './latents-file.ts';
import { duration, progressLine } from './progress-line.ts';
import { loadFlags, loadOptions, numberFrom } from './request-flags.ts';

export const RUN_FLAGS: Flags = {
  output: { value: 'OUT', short: 'o', help: 'picture to write: .png, .jpg or .webp; OUT-1, OUT-2, … with --images' },
  model: { value: 'PATH|URL|demo', help: 'folder of the model (default: demo, the small one that comes along)' },
  width: { value: 'W', help: 'of the picture, with --height; the same as --size WxH' },
  height: { value: 'H', help: 'multiples of 16' },
  ...loadFlags(),
  programs: { value: 'BUNDLE', help: 'folder or URL of programs compiled ahead of time' },
  adapter: { value: 'NAME', help: 'part of the GPU’s name, as doctor shows it' },
  'save-latents': { value: 'FILE', help: 'write the final latents as safetensors' },
  metadata: { help: 'keep prompt, seed and options in the PNG' },
  json: { help: 'print a report as JSON: seed, size, timings, memory' },
  quiet: { help: 'no progress' },
};

/** Options of a request as the flags gave them; the SDK checks them. */
type Given = Record<string, unknown> & { prompt: string };

/** @throws KontextError; the caller turns its code into an exit code */
export async function runRequest(values: FlagValues<Flags>, signal: AbortSignal, given: Given): Promise<void> {
  const output = text(values.output);
  if (output === undefined) throw usage('Where should the picture go? Give -o OUT.');
  formatOf(output);
  const request = { ...given, ...sizeFrom(values) } as unknown as EditRequest | GenerateRequest;
  const place = text(values.model) ?? 'demo';
  const line = progressLine(process.stderr);
  const quiet = values.quiet === true || values.json === true;
  const kontext = await Kontext.load(place === 'demo' ? demoModel() : place, { ...loadFrom(values), signal });
  try {
    const observed = { ...request, signal, ...(!quiet && { onProgress: line.show }) };
    const result = 'image' in observed ? await kontext.edit(observed) : await kontext.generate(observed);
    line.clear();
    const outputs = await write(values, output, result);
    if (values.json) console.log(JSON.stringify(reportOf(result, outputs, kontext.adapter?.description)));
    else if (!values.quiet) {
      const { width, height } = result.image;
      console.log(
        `${outputs.join(', ')} (${width}×${height}, seed ${result.seed}, ${duration(result.timings.totalMs)})`,
      );
      if (result.truncated) {
        console.error(`The prompt is longer than ${result.options.maxSequenceLength} tokens; its end was not read.`);
      }
    }
  } finally {
    line.clear();
    await kontext.close();
  }
}

/** Pictures and latents, or nothing. @returns the pictures' paths */
async function write(values: FlagValues<Flags>, output: string, result: EditResult): Promise<string[]> {
  const latents = text(values['save-latents']);
  if (latents !== undefined) await writeLatents(latents, result.latents);
  const { prompt, ...options } = result.options;
  const written: string[] = [];
  try {
    for (const [i, image] of result.images.entries()) {
      const path = result.images.length === 1 ? output : numbered(output, i + 1);
      const seed = String(BigInt(result.seed) + BigInt(i));
      const metadata = JSON.stringify({ software: 'kontext-webgpu', prompt, seed, options });
      await saveImage(path, image, values.metadata ? { metadata } : {});
      written.push(path);
    }
  } catch (error) {
    for (const path of [...written, ...(latents === undefined ? [] : [latents])]) await rm(path, { force: true });
    throw error;
  }
  return written;
}

/** `out.png` → `out-2.png`. */
function numbered(path: string, number: number): string {
  const ending = extname(path);
  return `${path.slice(0, path.length - ending.length)}-${number}${ending}`;
}

function sizeFrom(values: FlagValues<Flags>): { size?: { width: number; height: number } } {
  const [width, height] = [text(values.width), text(values.height)];
  if ((width === undefined) !== (height === undefined)) throw usage('Give --width and --height together.');
  if (width === undefined || height === undefined) return {};
  if (values.size !== undefined) throw usage('Give --size, or --width and --height.');
  return { size: { width: numberFrom('width', width), height: numberFrom('height', height) } };
}

function loadFrom(values: FlagValues<Flags>): LoadOptions {
  const [adapter, programs] = [text(values.adapter), text(values.programs)];
  return {
    ...loadOptions(values),
    ...(programs !== undefined && { programs }),
    ...(adapter !== undefined && { device: { adapter } }),
  } as LoadOptions;
}

function reportOf(result: EditResult, outputs: string[], adapter: string | undefined): Record<string, unknown> {
  const { width, height } = result.image;
  return {
    output: outputs[0],
    outputs,
    seed: Number.isSafeInteger(Number(result.seed)) ? Number(result.seed) : String(result.seed),
    width,
    height,
    options: result.options,
    truncated: result.truncated,
    timings: result.timings,
    memory: { ...result.memory, hostBytes: process.memoryUsage().rss },
    adapter,
  };
}

function text(value: string | string[] | boolean | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
