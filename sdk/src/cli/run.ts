// What `kontext edit` and `kontext generate` share: flags about model, output and report, and the way from requests to files.
// One model for all pictures; a bad one is told and passed over. Whatever can be refused is refused before the model is opened.
import { KontextError, type KontextErrorCode } from '../../../runtime/src/errors.ts';
import { assertCanEncode, encodeImage } from '../image/node.ts';
import type { Engine } from '../kontext/kontext.ts';
import { checkRequest } from '../kontext/request.ts';
import type { EditRequest, EditResult, GenerateRequest } from '../kontext/types.ts';
import { Kontext } from '../node.ts';
import { byteProgress } from './byte-progress.ts';
import { CHOOSE_FLAGS, choiceFrom, chooserOf } from './choose.ts';
import { withSettingsOf } from './from-picture.ts';
import { type Flags, type FlagValues, usage } from './grammar.ts';
import type { Input } from './inputs.ts';
import { latentsBytes } from './latents-file.ts';
import { loadFrom, MODEL_FLAGS, modelFrom, modelName } from './model-flags.ts';
import { checkWritable, deliver, IMAGE_FORMATS, type Output, planOutputs } from './outputs.ts';
import { duration, progressLine } from './progress-line.ts';
import { numberFrom } from './request-flags.ts';

export const RUN_FLAGS: Flags = {
  output: { value: 'OUT', short: 'o', help: 'file (.png, .jpg, .webp), folder, or - for standard output' },
  force: { short: 'f', help: 'replace files that are there, without asking' },
  format: {
    value: 'NAME',
    help: `${IMAGE_FORMATS.join('|')}; for folders (default: the input’s) and standard output (png)`,
  },
  ...MODEL_FLAGS,
  width: { value: 'W', help: 'of the picture, with --height; the same as --size WxH' },
  height: { value: 'H', help: 'multiples of 16' },
  ...CHOOSE_FLAGS,
  'save-latents': { value: 'FILE', help: 'write the final latents as safetensors' },
  from: {
    value: 'IMAGE',
    help: 'settings of a picture made before, prompt and seed too; what is given besides replaces them',
  },
  'no-metadata': { help: 'keep prompt, seed and options out of the picture’s file' },
  json: { help: 'print a report as JSON, a line for each input: seed, size, timings, memory' },
  quiet: { help: 'no progress' },
};

/** Options of a request as the flags gave them; the SDK checks them. */
export type Given = Record<string, unknown> & { prompt?: string };

/** Reports go where the picture does not. */
interface Report {
  line(text: string): void;
  json: boolean;
  quiet: boolean;
}

/** @param inputs pictures to edit; undefined to make one from the prompt alone. @throws KontextError, whose code becomes the exit code */
export async function runRequests(
  values: FlagValues<Flags>,
  signal: AbortSignal,
  given: Given,
  inputs: readonly Input[] | undefined,
): Promise<void> {
  const kind = inputs ? 'edit' : 'generate';
  const from = text(values.from);
  const options: Record<string, unknown> = { ...given, ...sizeFrom(values) };
  const shared = from === undefined ? options : await withSettingsOf(from, kind, options, signal, console.error);
  const variants = Number(shared.variants ?? 1);
  const choice = choiceFrom(text(values.choose), variants);
  const pictures = inputs ?? [{ label: 'picture', picture: '' }];
  const named = (count: number) => planOutputs(text(values.output), pictures, count, text(values.format));
  const outputs = await named(choice.kind === 'numbers' ? choice.numbers.length : Number(shared.images ?? 1));
  // How many will be chosen is not known yet: every name there may be is seen to.
  const several = choice.kind === 'ask' ? await named(variants) : outputs;
  const jobs = pictures.map(({ label, picture }, i) => {
    const choose = chooserOf(choice, outputs[i]![0]!.path, { input: process.stdin, output: process.stderr });
    const request = { ...shared, ...(choose && { choose }), ...(inputs && { image: picture }) };
    return { label, request: request as unknown as EditRequest | GenerateRequest };
  });
  checkRequest(jobs[0]!.request);
  const all = choice.kind === 'ask' ? outputs.map((some, i) => [...some, ...several[i]!]) : outputs;
  await checkOutputs(values, jobs[0]!.request, all, signal);
  const source = modelFrom(values);
  const report: Report = {
    line: outputs[0]![0]!.path === '-' ? (line) => console.error(line) : (line) => console.log(line),
    json: values.json === true,
    quiet: values.quiet === true,
  };
  const started = performance.now();
  const failures: { label: string; error: KontextError }[] = [];
  const downloading = report.quiet ? undefined : byteProgress(process.stderr, 'downloading');
  const kontext = await Kontext.load(source, {
    ...(await loadFrom(values)),
    signal,
    onDownload: (event) =>
      downloading?.show({ file: event.file, bytes: event.loadedBytes, totalBytes: event.totalBytes }),
  }).finally(() => downloading?.clear());
  try {
    for (const [i, { label, request }] of jobs.entries()) {
      const prefix = jobs.length > 1 ? `${i + 1}/${jobs.length} ${label}: ` : '';
      try {
        await runOne(kontext, { ...request, signal }, [outputs[i]!, several[i]!], { ...report, prefix, values });
      } catch (error) {
        if (jobs.length === 1 || !(error instanceof KontextError) || FATAL.includes(error.code)) throw error;
        failures.push({ label, error });
        if (report.json) report.line(JSON.stringify({ input: label, error: error.toJSON() }));
        else console.error(`kontext: ${error.message}`);
      }
    }
  } finally {
    await kontext.close();
  }
  if (jobs.length === 1) return;
  const done = jobs.length - failures.length;
  const time = duration(performance.now() - started);
  if (report.json)
    report.line(JSON.stringify({ done, failed: failures.length, totalMs: Math.round(performance.now() - started) }));
  else if (!report.quiet) report.line(`${done} of ${jobs.length} pictures in ${time}`);
  const [first] = failures;
  if (!first) return;
  const names = failures.map(({ label }) => label).join(', ');
  throw new KontextError(first.error.code, `${failures.length} of ${jobs.length} pictures failed: ${names}.`, {
    failed: failures.length,
    done,
  });
}

/** What would fail for every further picture in the same way, or what the user wants. */
const FATAL: readonly KontextErrorCode[] = [
  'aborted',
  'closed',
  'webgpu-unavailable',
  'feature-missing',
  'weights-invalid',
  'tokenizer-invalid',
  'program-invalid',
  'program-mismatch',
  'gpu-validation',
];

async function runOne(
  kontext: Engine,
  request: EditRequest | GenerateRequest,
  [few, several]: readonly [readonly Output[], readonly Output[]],
  { values, prefix, ...report }: Report & { values: FlagValues<Flags>; prefix: string },
): Promise<void> {
  const line = progressLine(process.stderr, prefix);
  const { choose } = request;
  const observed = {
    ...request,
    ...(!report.quiet && !report.json && { onProgress: line.show }),
    ...(choose && {
      choose: (...asked: Parameters<typeof choose>) => {
        line.clear();
        return choose(...asked);
      },
    }),
  };
  try {
    const result = 'image' in observed ? await kontext.edit(observed) : await kontext.generate(observed);
    line.clear();
    const outputs = result.images.length > few.length ? several : few;
    await write(values, outputs, result);
    if (report.json) {
      report.line(
        JSON.stringify(
          reportOf(result, outputs, kontext.adapter?.description, 'image' in request ? request.image : undefined),
        ),
      );
      return;
    }
    if (report.quiet) return;
    const { width, height } = result.image;
    const names = outputs.map(({ path }) => (path === '-' ? 'standard output' : path)).join(', ');
    report.line(`${names} (${width}×${height}, seed ${result.seed}, ${duration(result.timings.totalMs)})`);
    if (result.truncated) {
      console.error(`The prompt is longer than ${result.options.maxSequenceLength} tokens; its end was not read.`);
    }
  } finally {
    line.clear();
  }
}

async function checkOutputs(
  values: FlagValues<Flags>,
  request: EditRequest | GenerateRequest,
  outputs: readonly (readonly Output[])[],
  signal: AbortSignal,
): Promise<void> {
  const latents = text(values['save-latents']);
  if (latents !== undefined && outputs.length > 1) throw usage('--save-latents takes one input picture at a time.');
  await assertCanEncode();
  const { size, maxArea } = checkRequest(request);
  // Where the model chooses, it is about a megapixel; the demo model's pictures are 64×64.
  const isDemo = values.transformer === undefined && (text(values.model) ?? 'demo') === 'demo';
  const automatic = isDemo ? 64 * 64 : 1024 * 1024;
  const area = maxArea ?? (typeof size === 'object' ? size.width * size.height : automatic);
  const files = outputs
    .flat()
    .map(({ path }) => path)
    .filter((path) => path !== '-');
  const options = { force: values.force === true, signal };
  // A PNG is at most its pixels and a little; packed latents are a float for each pixel.
  await checkWritable(files, {
    ...options,
    bytes: files.length * (area * 3 + 4096),
    makesFolders: isFolderOutput(values, outputs),
  });
  if (latents !== undefined) {
    await checkWritable([latents], { ...options, bytes: outputs[0]!.length * area * 4, makesFolders: false });
  }
}

/** Folders are made when the user asked for one; a folder in a file's path that is not there is rather a slip. */
function isFolderOutput(values: FlagValues<Flags>, outputs: readonly (readonly Output[])[]): boolean {
  const output = text(values.output)!;
  return outputs.length > 1 || /[\\/]$/.test(output);
}

/** Every picture and the latents; what cannot be written is kept elsewhere, and told when the rest is written. */
async function write(values: FlagValues<Flags>, outputs: readonly Output[], result: EditResult): Promise<void> {
  let failed: KontextError | undefined;
  const attempt = async (task: () => Promise<void>) => {
    await task().catch((error: unknown) => {
      if (!(error instanceof KontextError)) throw error;
      failed = failed ? new KontextError(failed.code, `${failed.message} ${error.message}`, failed.details) : error;
    });
  };
  for (const [i, image] of result.images.entries()) {
    const { path, format } = outputs[i]!;
    const seed = result.seeds[i]!;
    const settings = values['no-metadata'] ? {} : { settings: { ...result.options, seed, model: modelName(values) } };
    await attempt(async () => deliver(path, await encodeImage(image, format, settings)));
  }
  const latents = text(values['save-latents']);
  if (latents !== undefined) await attempt(() => deliver(latents, latentsBytes(result.latents)));
  if (failed) throw failed;
}

function sizeFrom(values: FlagValues<Flags>): { size?: { width: number; height: number } } {
  const [width, height] = [text(values.width), text(values.height)];
  if ((width === undefined) !== (height === undefined)) throw usage('Give --width and --height together.');
  if (width === undefined || height === undefined) return {};
  if (values.size !== undefined) throw usage('Give --size, or --width and --height.');
  return { size: { width: numberFrom('width', width), height: numberFrom('height', height) } };
}

function reportOf(
  result: EditResult,
  outputs: readonly Output[],
  adapter: string | undefined,
  input: unknown,
): Record<string, unknown> {
  const { width, height } = result.image;
  return {
    ...(typeof input === 'string' && { input }),
    output: outputs[0]!.path,
    outputs: outputs.map(({ path }) => path),
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
