// compile(): a component of the model, at one shape, for one target, as a Program.
// Pure and deterministic: no device, no I/O, no globals; equal requests give equal bytes.

import { KontextError } from '../../runtime/src/errors.ts';
import { RANK_UNIT } from '../../runtime/src/program/adapter-rooms.ts';
import type { Program, WeightFormat } from '../../runtime/src/program/types.ts';
import { Builder } from './graph/builder.ts';
import { type Graph, verifyGraph } from './graph/graph.ts';
import type { AdapterRoom } from './graph/room.ts';
import { tap } from './graph/tap.ts';
import {
  buildVaeDecode,
  buildVaeEncode,
  type VaeDecodeOptions,
  type VaeEncodeOptions,
  type VaeSpec,
  vaeFactor,
} from './models/autoencoder.ts';
import { buildClip, type ClipSpec } from './models/clip.ts';
import {
  buildDenoise,
  buildDenoiseAttended,
  buildDenoiseFirst,
  buildDenoiseRest,
  buildDenoiseSkip,
  buildModulation,
  type FluxSpec,
  type PatchGrid,
  tokensOf,
} from './models/flux.ts';
import { buildDenoiseNag } from './models/flux-nag.ts';
import {
  buildCfgVelocity,
  buildCfgZeroVelocity,
  buildEuler,
  buildKeepKnown,
  buildSampler,
  buildTaylorPredict,
  buildTaylorUpdate,
} from './models/sampler.ts';
import { buildT5, type T5Spec } from './models/t5.ts';
import { buildTileBlend, buildTileFinish, type TileShape } from './models/tiles.ts';
import { buildTinyDecode, type TinyDecoderSpec } from './models/tiny-decoder.ts';
import { assignTypes } from './passes/assign-types.ts';
import { eliminateDead } from './passes/eliminate-dead.ts';
import { foldConcat } from './passes/fold-concat.ts';
import { fusePointwise } from './passes/fuse-pointwise.ts';
import { lower, type ProductObserver } from './plan/lower.ts';
import type { Quantization } from './plan/weight-request.ts';
import { hasTier, type TargetProfile } from './targets/types.ts';

/**
 * Which part of the pipeline, and its shape. Ports of each program are listed at the model that builds it. With `room` the
 * linear layers also take adapters' factors, by the ports that `facts.adapters` (a `ModuleRoom[]`) names.
 */
export type Component =
  /** in `embeddings` [tokens, width] (token embeddings); out `hidden` [tokens, width] */
  | { component: 'clip'; spec: ClipSpec; tokens: number; room?: AdapterRoom }
  /** in `embeddings` [tokens, width]; out `hidden` [tokens, width] */
  | { component: 't5'; spec: T5Spec; tokens: number; validTokens?: number; room?: AdapterRoom }
  /** in `timesteps` [steps, 256], `pooled` [1, pooledWidth], `guidance` [1, 256] if the model has it; out `modulation` */
  | { component: 'modulation'; spec: FluxSpec; steps: number; room?: AdapterRoom }
  /** in `latents`, `control` if the model takes more channels, `references` if any, `text`, `modulation` [1, …], `rope`; out `velocity` */
  | {
      component: 'denoise';
      spec: FluxSpec;
      textTokens: number;
      image: PatchGrid;
      references: PatchGrid[];
      room?: AdapterRoom;
    }
  /** Parts of `denoise` and variants of it, for steps that reuse earlier ones or guide attention; ports are at their builders. */
  | {
      component: DenoisePart;
      spec: FluxSpec;
      textTokens: number;
      image: PatchGrid;
      references: PatchGrid[];
      room?: AdapterRoom;
    }
  /** inout `f0`, `f1`, `f2`; in `value`, `step` [1, 4] */
  | { component: 'taylor-update'; rows: number; cols: number }
  /** in `f0`, `f1`, `f2`, `step` [1, 4]; out `value` */
  | { component: 'taylor-predict'; rows: number; cols: number }
  /** inout `latents`; in `velocity`, `step` [1, 4] = (dt, 0, 0, 0) */
  | { component: 'euler'; tokens: number; channels: number }
  /** inout `velocity`; in `negative`, `scale` [1, 4] = (cfgScale, 0, 0, 0) */
  | { component: 'cfg'; tokens: number; channels: number }
  /** inout `velocity`; in `negative`, `scale` [1, 4], `ones` and `zeros` [1, channels] */
  | { component: 'cfg-zero'; tokens: number; channels: number }
  /** inout `latents`; in `velocity`, `d1`, `d2`, `d3`, `noise`, `step` [1, 8]; out `derivative`; see the model */
  | { component: 'sampler'; tokens: number; channels: number }
  /** inout `latents`; in `mask`, `known`, `noise`, `step` [1, 4] = (σ, 0, 0, 0) */
  | { component: 'keep-known'; tokens: number; channels: number }
  /** in `pixels` or `tensor`, `noise` if sampling; out `latents` */
  | ({ component: 'vae-encode'; spec: VaeSpec } & VaeEncodeOptions)
  /** in `latents`; out `image` or `tensor` */
  | ({ component: 'vae-decode'; spec: VaeSpec } & VaeDecodeOptions)
  /** in `latents`; out `image` rgba8 words */
  | { component: 'preview-decode'; spec: TinyDecoderSpec; height: number; width: number }
  /** inout `sum` [height·width, channels + 1]; in `tile` [tileHeight·tileWidth, channels], `position` [1, 8] */
  | ({ component: 'tile-blend' } & TileShape)
  /** in `sum`; out `image` rgba8 words, or `latents` [height/2 · width/2, 4·channels] */
  | { component: 'tile-finish'; height: number; width: number; channels: number; output: 'image' | 'packed' };

/**
 * The first block, the others, and the last layer alone; the whole with its attentions told, or given; with guided attention; of some of
 * the target's tokens, as a grid of one row.
 */
export type DenoisePart =
  | 'denoise-first'
  | 'denoise-rest'
  | 'denoise-skip'
  | 'denoise-tell'
  | 'denoise-given'
  | 'denoise-nag'
  | 'denoise-region';

export type CompileRequest = Component & {
  target: TargetProfile;
  quantization?: Quantization;
  /**
   * Formats of single matrices by their names in the checkpoint, which win over `quantization`: what a packed or a quantised model
   * holds them in. A matrix whose columns do not fit its format takes that of `quantization`.
   */
  stored?: Readonly<Record<string, WeightFormat>>;
  /** Labels of intermediates that become extra output ports, for comparing with a reference. */
  taps?: readonly string[];
};

/**
 * @param observe told of each dispatch whose schedule can be measured
 * @throws KontextError `invalid-request` when a size does not fit the model (not a multiple of the patch, no tokens)
 */
export function compile(request: CompileRequest, observe?: ProductObserver): Program {
  const { target } = request;
  const g = builderFor(request);
  const graph = optimize(tap(buildGraph(request, g), request.taps ?? []), target);
  const adapters = g.adapterRooms;
  return lower(graph, {
    component: request.component,
    label: `${describe(request)} for ${target.name}`,
    target,
    quantization: request.quantization ?? 'none',
    ...(request.stored && { stored: request.stored }),
    observe,
    facts: { ...factsOf(request), ...(adapters.length > 0 ? { adapters } : {}) },
  });
}

/** The model's graph before any pass: what tests compare the passes with. */
export function buildGraph(request: Component, g = builderFor(request)): Graph {
  switch (request.component) {
    case 'clip':
      return buildClip(g, request.spec, positive('tokens', request.tokens));
    case 't5':
      return buildT5(g, request.spec, positive('tokens', request.tokens), request.validTokens);
    case 'modulation':
      return buildModulation(g, request.spec, positive('steps', request.steps));
    case 'denoise':
    case 'denoise-first':
    case 'denoise-rest':
    case 'denoise-skip':
    case 'denoise-tell':
    case 'denoise-given':
    case 'denoise-nag':
    case 'denoise-region':
      for (const grid of [request.image, ...request.references]) {
        positive('patch rows', grid.height);
        positive('patch columns', grid.width);
      }
      positive('text tokens', request.textTokens);
      return DENOISE[request.component](g, request.spec, request);
    case 'taylor-update':
      return buildTaylorUpdate(g, positive('rows', request.rows), request.cols);
    case 'taylor-predict':
      return buildTaylorPredict(g, positive('rows', request.rows), request.cols);
    case 'euler':
      return buildEuler(g, positive('tokens', request.tokens), request.channels);
    case 'cfg':
      return buildCfgVelocity(g, positive('tokens', request.tokens), request.channels);
    case 'cfg-zero':
      return buildCfgZeroVelocity(g, positive('tokens', request.tokens), request.channels);
    case 'sampler':
      return buildSampler(g, positive('tokens', request.tokens), request.channels);
    case 'keep-known':
      return buildKeepKnown(g, positive('tokens', request.tokens), request.channels);
    case 'preview-decode':
      checkImage(request, 2 ** request.spec.blocks.length);
      return buildTinyDecode(g, request.spec, request);
    case 'vae-encode':
      checkImage(request, vaeUnit(request));
      return buildVaeEncode(g, request.spec, request);
    case 'vae-decode':
      checkImage(request, vaeUnit(request));
      return buildVaeDecode(g, request.spec, request);
    case 'tile-blend':
      return buildTileBlend(g, request);
    case 'tile-finish':
      return buildTileFinish(g, request);
    default:
      throw request satisfies never;
  }
}

const builderFor = (request: Component): Builder =>
  new Builder('room' in request && request.room !== undefined ? checkedRoom(request.room) : undefined);

const DENOISE: Record<'denoise' | DenoisePart, typeof buildDenoise> = {
  denoise: buildDenoise,
  'denoise-first': buildDenoiseFirst,
  'denoise-rest': buildDenoiseRest,
  'denoise-skip': buildDenoiseSkip,
  'denoise-tell': (g, spec, shape) => buildDenoiseAttended(g, spec, shape, false),
  'denoise-given': (g, spec, shape) => buildDenoiseAttended(g, spec, shape, true),
  'denoise-nag': buildDenoiseNag,
  'denoise-region': buildDenoise,
};

/** The passes, in order. The list is closed: a new one needs a reason, a test and a line in docs/design. */
export function optimize(graph: Graph, target: TargetProfile): Graph {
  verifyGraph(graph);
  const live = eliminateDead(graph);
  const folded = foldConcat(live);
  const fused = fusePointwise(folded, target.limits.maxStorageBuffersPerShaderStage);
  const typed = assignTypes(fused, hasTier(target, 'f16'));
  verifyGraph(typed);
  return typed;
}

function describe(r: Component): string {
  const grid = (g: PatchGrid): string => `${g.width * 16}×${g.height * 16}`;
  switch (r.component) {
    case 'clip':
    case 't5':
    case 'euler':
    case 'cfg':
    case 'cfg-zero':
    case 'keep-known':
    case 'sampler':
      return `${r.component} ${r.tokens} tokens`;
    case 'modulation':
      return `modulation ${r.steps} steps`;
    case 'taylor-update':
    case 'taylor-predict':
      return `${r.component} ${r.rows}×${r.cols}`;
    case 'denoise':
    case 'denoise-first':
    case 'denoise-rest':
    case 'denoise-skip':
    case 'denoise-tell':
    case 'denoise-given':
    case 'denoise-nag':
    case 'denoise-region':
      return `${r.component} ${[r.image, ...r.references].map(grid).join(' + ')}, ${r.textTokens} text tokens`;
    default:
      return `${r.component} ${r.width}×${r.height}`;
  }
}

function factsOf(r: Component): Record<string, unknown> {
  if (r.component !== 'denoise') return {};
  return {
    textTokens: r.textTokens,
    image: r.image,
    references: r.references,
    tokens: r.textTokens + [r.image, ...r.references].reduce((sum, g) => sum + tokensOf(g), 0),
    axes: r.spec.axes,
    theta: r.spec.theta,
  };
}

function positive(what: string, value: number): number {
  if (Number.isInteger(value) && value > 0) return value;
  throw new KontextError('invalid-request', `The number of ${what} must be a positive integer, not ${value}.`);
}

function checkedRoom(room: AdapterRoom): AdapterRoom {
  const ranks = typeof room === 'number' ? [room] : Object.values(room);
  const wrong = ranks.find((rank) => !(Number.isInteger(rank) && rank > 0 && rank % RANK_UNIT === 0));
  if (wrong === undefined) return room;
  throw new KontextError(
    'invalid-request',
    `The rank of room for adapters must be a multiple of ${RANK_UNIT}, not ${wrong}.`,
  );
}

/** Sides must divide into this many pixels: of a latent pixel, or of a patch of two by two. */
function vaeUnit(r: { spec: VaeSpec; packed?: boolean }): number {
  return (r.packed === false ? 1 : 2) * vaeFactor(r.spec);
}

function checkImage(r: { height: number; width: number }, unit: number): void {
  for (const [name, value] of [
    ['height', r.height],
    ['width', r.width],
  ] as const) {
    if (Number.isInteger(value) && value > 0 && value % unit === 0) continue;
    throw new KontextError(
      'invalid-request',
      `The image's ${name} must be a positive multiple of ${unit}, not ${value}.`,
    );
  }
}
