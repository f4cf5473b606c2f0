// `kontext edit` and `kontext generate`: typed words to a request, the result to a file.
// Nothing is written before all of it is there; a cancelled or failed run leaves no file behind.
import { readFile, rm } from 'node:fs/promises';
import { formatOf, saveImage } from '../image/node.ts';
import type { LoadOptions } from '../kontext/kontext.ts';
import { type NumberOption, REQUEST_OPTIONS } from '../kontext/options.ts';
import type { EditRequest, EditResult, GenerateRequest } from '../kontext/types.ts';
import { demoModel } from '../model/demo.ts';
import { Kontext } from '../node.ts';
import { type ParsedArguments, usage } from './arguments.ts';
import { readLatents, writeLatents } from './latents-file.ts';
import { duration, progressLine } from './progress-line.ts';

/** @throws KontextError; the caller turns its code into an exit code */
export async function runRequest(parsed: ParsedArguments, signal: AbortSignal): Promise<void> {
  const { values } = parsed;
  const output = text(values.output);
  if (output === undefined) throw usage('Where should the picture go? Give -o OUT.');
  formatOf(output);
  const request = await requestFrom(parsed);
  const place = text(values.model) ?? 'demo';
  const line = progressLine(process.stderr);
  const quiet = values.quiet === true || values.json === true;
  const kontext = await Kontext.load(place === 'demo' ? demoModel() : place, {
    ...(await loadOptions(parsed)),
    signal,
  });
  try {
    const observed = { ...request, signal, ...(!quiet && { onProgress: line.show }) };
    const result = 'image' in observed ? await kontext.edit(observed) : await kontext.generate(observed);
    line.clear();
    await write(parsed, output, result);
    if (values.json) console.log(JSON.stringify(reportOf(result, output, kontext.adapter?.description)));
    else if (!values.quiet) {
      const { width, height } = result.image;
      console.log(`${output} (${width}×${height}, seed ${result.seed}, ${duration(result.timings.totalMs)})`);
      if (result.truncated) {
        console.error(`The prompt is longer than ${result.options.maxSequenceLength} tokens; its end was not read.`);
      }
    }
  } finally {
    line.clear();
    await kontext.close();
  }
}

/** Picture and latents, or neither. */
async function write({ values }: ParsedArguments, output: string, result: EditResult): Promise<void> {
  const latents = text(values['save-latents']);
  if (latents !== undefined) await writeLatents(latents, result.latents);
  const { prompt, ...options } = result.options;
  const metadata = { software: 'kontext-webgpu', prompt, seed: String(result.seed), options };
  try {
    await saveImage(output, result.image, values.metadata ? { metadata: JSON.stringify(metadata) } : {});
  } catch (error) {
    if (latents !== undefined) await rm(latents, { force: true });
    throw error;
  }
}

async function requestFrom({ command, words, values }: ParsedArguments): Promise<EditRequest | GenerateRequest> {
  const wanted = command === 'edit' ? ['IMAGE', 'PROMPT'] : ['PROMPT'];
  if (words.length !== wanted.length) {
    const hint = words.length > wanted.length ? ' Put the prompt in quotes.' : '';
    throw usage(`kontext ${command} takes ${wanted.join(' and ')}, but got ${words.length} words.${hint}`);
  }
  const [width, height] = [values.width, values.height].map((side) => (side === undefined ? undefined : Number(side)));
  if ((width === undefined) !== (height === undefined)) throw usage('Give --width and --height together.');
  const latents = text(values.latents);
  const shared: GenerateRequest = {
    prompt: words.at(-1)!,
    ...numbers(values),
    ...(width !== undefined && height !== undefined && { size: { width, height } }),
    ...(values['negative-prompt'] !== undefined && { negativePrompt: text(values['negative-prompt'])! }),
    ...(values.seed !== undefined && { seed: seedOf(text(values.seed)!) }),
    ...(latents !== undefined && { latents: await readLatents(latents) }),
  };
  if (command !== 'edit') return shared;
  return {
    ...shared,
    image: words[0]!,
    ...(values.reference !== undefined && { references: values.reference as string[] }),
    ...(values['no-auto-resize'] === true && { autoResize: false }),
  };
}

/** Range and wholeness are the SDK's business; that it is a number at all is checked here, for a better message. */
function numbers(values: ParsedArguments['values']): Partial<Record<keyof typeof REQUEST_OPTIONS, number>> {
  const given: Partial<Record<keyof typeof REQUEST_OPTIONS, number>> = {};
  for (const [name] of Object.entries<NumberOption>(REQUEST_OPTIONS)) {
    const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    const value = text(values[flag as keyof typeof values]);
    if (value === undefined) continue;
    if (value.trim() === '' || Number.isNaN(Number(value)))
      throw usage(`--${flag} is "${value}"; it must be a number.`);
    given[name as keyof typeof REQUEST_OPTIONS] = Number(value);
  }
  return given;
}

function seedOf(value: string): bigint {
  if (/^-?\d+$/.test(value)) return BigInt(value);
  throw usage(`--seed is "${value}"; it must be a whole number.`);
}

async function loadOptions({ values }: ParsedArguments): Promise<LoadOptions> {
  const adapter = text(values.adapter);
  const choices = Object.fromEntries(
    (['precision', 'conditioning', 'quantization', 'memory'] as const)
      .filter((name) => values[name] !== undefined)
      .map((name) => [name, values[name]]),
  );
  // The SDK refuses values that are not in its lists.
  const bundle = text(values.programs);
  const key = text(values['public-key']);
  if (key !== undefined && bundle === undefined)
    throw usage('--public-key says who signed a bundle: give --programs too.');
  const programs = bundle !== undefined && key !== undefined ? { bundle, publicKey: await readKey(key) } : bundle;
  return {
    ...choices,
    ...(programs !== undefined && { programs }),
    ...(adapter !== undefined && { device: { adapter } }),
  } as LoadOptions;
}

/** A key on the command line is its file, or the key itself. */
function readKey(key: string): Promise<string> {
  return readFile(key, 'utf8').catch(() => key);
}

function reportOf(result: EditResult, output: string, adapter: string | undefined): Record<string, unknown> {
  const { width, height } = result.image;
  return {
    output,
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
