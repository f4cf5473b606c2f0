// What a model will need, told before anything of it is loaded: download, GPU memory by stage, work, for every choice of memory
// and quantisation. Follows pipeline.ts step by step over compiled programs; a test holds it to measured peaks.

import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import { checkProgram } from '../../../runtime/src/program/check.ts';
import { modulationWidth, rowsAtOnce } from '../../../runtime/src/program/modulation-rows.ts';
import type { Program } from '../../../runtime/src/program/types.ts';
import type { Model, PartName } from '../model/open.ts';
import type { PlannedAdapters } from './adapters/room.ts';
import { type Setting, settings } from './budget.ts';
import { patches, TOKEN_CHANNELS, tokenCount } from './latents.ts';
import { MemoryLedger } from './memory-ledger.ts';
import type { MemoryMode, Precision, Quantization } from './options.ts';
import { completeRequest, isStreamed, PART_OF, programFlops, type ShapeRequest } from './parts.ts';
import type { ModelSpecs, ProgramProvider, ProgramRequest } from './programs.ts';
import { TILINGS } from './tiling.ts';
import type { ImageSize, Stage } from './types.ts';

/** What to plan for; defaults are the model's own. */
export interface PlannedRequest {
  /** Of the picture. */
  size: ImageSize;
  /** Sizes of the references. */
  references: readonly ImageSize[];
  /** Denoising steps. */
  steps: number;
  /** T5 tokens. */
  maxSequenceLength: number;
  /** With a `nagScale`: in how many steps attention is guided. */
  guided?: number;
  /** With a cache of kind `region`. */
  region?: PlannedRegion;
}

/** What of the picture a region cache evaluates. */
export interface PlannedRegion {
  /** Of the region; all of the picture's where it is the whole. */
  tokens: number;
  /** Steps in which the region alone is evaluated. */
  steps: number;
}

/** One choice of memory and quantisation. */
export interface SettingPlan extends Setting {
  /** The largest of `stages`. */
  gpuPeakBytes: number;
  /** Highest GPU memory during each stage of an edit. */
  stages: Record<Stage, number>;
  /** In JavaScript and the driver for uploads, beside the process itself. */
  hostBytes: number;
  /** Read from the model's files in one edit. */
  readBytes: number;
  /** Floating-point operations of one edit. */
  flops: number;
}

/** What a model will need. */
export interface ModelPlan {
  /** Bytes of the model's weights by part, as they lie in its files: the download. */
  download: Record<PartName, number>;
  /** What was planned for. */
  request: PlannedRequest;
  /** Every choice, the best first. */
  choices: SettingPlan[];
}

/** Where plans come from. */
export interface PlanContext {
  model: Model;
  provider: ProgramProvider;
  device: AdapterReport;
  precision: Precision;
  /** In use for the whole edit. */
  adapters?: PlannedAdapters | undefined;
}

/** @throws KontextError as compiling does */
export async function planModel(
  context: PlanContext,
  request: PlannedRequest,
  quantization: Quantization,
  free: boolean,
): Promise<ModelPlan> {
  const { model, provider, device, precision, adapters } = context;
  const specs = await provider.specs(model);
  const target = await provider.target(device, precision);
  const programs = new Map<string, Promise<Program>>();
  const choices: SettingPlan[] = [];
  for (const setting of settings(quantization, free)) {
    const programOf = (shape: ShapeRequest) => {
      const room = adapters?.room(shape.component);
      const changed = adapters?.changed(PART_OF[shape.component]);
      const complete = completeRequest(room ? ({ ...shape, room } as ShapeRequest) : shape, {
        ...{ specs, target, model, quantization: setting.quantization },
        changed,
      });
      const key = JSON.stringify([shape, (complete as ProgramRequest).quantization]);
      const known = programs.get(key) ?? provider.program(complete);
      programs.set(key, known);
      return known;
    };
    choices.push({
      ...setting,
      ...(await planSetting({ model, specs, target, device, adapters, programOf }, request, setting.memory)),
    });
  }
  const download = Object.fromEntries(
    (Object.keys(model.parts) as PartName[]).map((part) => [part, bytesOf(model, part)]),
  ) as Record<PartName, number>;
  return { download, request, choices };
}

const bytesOf = (model: Model, part: PartName): number =>
  [...model.parts[part].weights.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);

/** Two chunks of 16 MiB on their way, each once in JavaScript and once in the driver, and remembered rows of embeddings. */
const HOST_BYTES = 4 * 16 * 2 ** 20 + 32 * 2 ** 20;
const CLIP_TOKENS = 77;

interface SettingContext {
  model: Model;
  specs: ModelSpecs;
  target: TargetProfile;
  device: AdapterReport;
  adapters: PlannedAdapters | undefined;
  programOf: (shape: ShapeRequest) => Promise<Program>;
}

async function planSetting(
  { model, specs, target, device, adapters, programOf }: SettingContext,
  request: PlannedRequest,
  memory: MemoryMode,
): Promise<Omit<SettingPlan, keyof Setting>> {
  const { size, references, steps, maxSequenceLength, guided, region } = request;
  const prompts = guided === undefined ? 1 : 2;
  const ledger = new MemoryLedger();
  const resident = memory === 'resident';
  const stages = {} as Record<Stage, number>;
  let flops = 0;
  let readBytes = 0;
  /** @param again the same weights are bound for another program already */
  const bind = (program: Program, runs = 1, shared: readonly string[] = [], again = false) => {
    const component = program.component as keyof typeof PART_OF;
    const part = PART_OF[component];
    const streamed = isStreamed(component, memory);
    const ready = part !== 'preview' && model.parts[part].stored !== undefined;
    ledger.bind(program, part, { streamed, shared, ready, changed: adapters?.changed(part) !== undefined });
    flops += runs * programFlops(program);
    readBytes +=
      (streamed ? runs : Number(runs > 0 && !again)) * program.weights.reduce((sum, { bytes }) => sum + bytes, 0);
  };
  const outputs = (program: Program) => program.ports.filter(({ direction }) => direction === 'out');
  const read = (program: Program) => ledger.touch(Math.max(0, ...outputs(program).map(({ bytes }) => bytes)));
  /** The autoencoder whole, or in the largest tiles that the device takes. */
  const autoencoder = async (component: 'vae-encode' | 'vae-decode', picture: ImageSize) => {
    const whole = await programOf({ component, ...picture });
    if (fits(whole, device)) {
      bind(whole);
      return read(whole);
    }
    for (const { tile, overlap } of TILINGS) {
      const side = { width: Math.min(tile, picture.width), height: Math.min(tile, picture.height) };
      const piece = await programOf(
        component === 'vae-decode' ? { component, ...side, output: 'tensor' } : { component, ...side, packed: false },
      );
      if (!fits(piece, device)) continue;
      const count = (length: number, of: number) => Math.ceil((length - overlap) / (of - overlap) || 1);
      bind(piece, count(picture.width, side.width) * count(picture.height, side.height));
      const channels = component === 'vae-decode' ? 4 : TOKEN_CHANNELS / 4 + 1;
      const scale = component === 'vae-decode' ? 1 : 64;
      ledger.touch((4 * channels * picture.width * picture.height) / scale);
      return;
    }
  };

  for (const reference of references) await autoencoder('vae-encode', reference);
  ledger.unbind('vae-encode');
  stages['encode-image'] = ledger.takePeak();

  for (const shape of [
    { component: 'clip', tokens: CLIP_TOKENS },
    { component: 't5', tokens: maxSequenceLength },
  ] as const) {
    const program = await programOf(shape);
    bind(program, prompts);
    read(program);
  }
  if (!resident) {
    ledger.release('clip', ['clip']);
    ledger.release('t5', ['t5']);
  }
  stages['encode-text'] = ledger.takePeak();

  const rows = rowsAtOnce(steps, specs.transformer, target.limits);
  const modulation = await programOf({ component: 'modulation', steps: rows });
  const rowBytes = 4 * rows * modulationWidth(specs.transformer);
  const textBytes = maxSequenceLength * specs.t5.width * 4;
  ledger.add(rowBytes);
  bind(modulation, prompts);
  ledger.add(textBytes + (prompts - 1) * (rowBytes + textBytes));
  ledger.unbind('modulation');
  stages.modulation = ledger.takePeak();

  const image = patches(size);
  const tokens = tokenCount(size);
  const grids = references.map(patches);
  const seen = { textTokens: maxSequenceLength, references: grids };
  const denoise = await programOf({ component: 'denoise', image, ...seen });
  if (guided === undefined) bind(denoise, steps - (region?.steps ?? 0));
  else {
    bind(await programOf({ component: 'denoise-nag', image, ...seen }), guided);
    // The plain one works on the guided one's buffers.
    const ports = denoise.ports.map(({ name }) => name);
    if (guided < steps) bind(denoise, steps - guided, ports, true);
  }
  const some = region && region.tokens < tokens ? { height: 1, width: region.tokens } : undefined;
  if (some) bind(await programOf({ component: 'denoise-region', image: some, ...seen }), region!.steps, [], true);
  const shape = { tokens, channels: TOKEN_CHANNELS };
  bind(await programOf({ component: 'euler', ...shape }), steps, ['latents', 'velocity']);
  if (region) bind(await programOf({ component: 'keep-known', ...shape }), steps, ['latents']);
  ledger.touch(tokens * TOKEN_CHANNELS * 4);
  if (rows < steps) {
    // Rows that did not fit are made while the loop runs.
    const later = prompts * (Math.ceil(steps / rows) - 1);
    bind(modulation, isStreamed('modulation', memory) ? later : 0);
    if (resident) flops += later * programFlops(modulation);
    ledger.unbind('modulation');
  }
  for (const component of ['euler', 'keep-known', 'denoise-region', 'denoise-nag']) ledger.unbind(component);
  if (guided !== undefined) ledger.unbind('denoise');
  stages.denoise = ledger.takePeak();

  await autoencoder('vae-decode', size);
  stages.decode = ledger.takePeak();
  return { gpuPeakBytes: Math.max(...Object.values(stages)), stages, hostBytes: HOST_BYTES, readBytes, flops };
}

function fits(program: Program, device: AdapterReport): boolean {
  try {
    checkProgram(program, device);
    return true;
  } catch {
    return false;
  }
}
