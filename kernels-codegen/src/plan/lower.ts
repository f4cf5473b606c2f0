// Turns placed graph nodes into kernels, buffer ranges and dispatches: the last step before a Program.
// The only file that knows both the graph's operations and the kernel families' specs.

import { KontextError } from '../../../runtime/src/errors.ts';
import type {
  BufferRange,
  Constant,
  Dispatch,
  Kernel,
  Port,
  Program,
  WeightFormat,
  WeightRequest,
} from '../../../runtime/src/program/types.ts';
import { PROGRAM_SCHEMA } from '../../../runtime/src/program/types.ts';
import type { Graph, Node, Tensor } from '../graph/graph.ts';
import { type AttentionSpec, attention } from '../kernels/attention/index.ts';
import { blendTile } from '../kernels/blend-tile.ts';
import { type Conv2dSpec, conv2d } from '../kernels/conv2d/index.ts';
import { gather } from '../kernels/gather.ts';
import { groupNormFinish, groupNormParameters, groupNormPartial } from '../kernels/group-norm.ts';
import { guideRows } from '../kernels/guide-rows.ts';
import { headNorm } from '../kernels/head-norm.ts';
import {
  allBindings,
  bytesOf,
  type Epilogue,
  type KernelSource,
  type MatrixView,
  type OperandView,
  viewLength,
} from '../kernels/kernel.ts';
import { type MatmulSpec, matmul, normsHeads } from '../kernels/matmul/index.ts';
import type { NormedHeads } from '../kernels/normed-heads.ts';
import { pointwise } from '../kernels/pointwise.ts';
import { rearrange } from '../kernels/rearrange.ts';
import { rowNorm } from '../kernels/row-norm.ts';
import type { TargetProfile } from '../targets/types.ts';
import { normalisedTensors } from './normalised.ts';
import { normedProjections } from './normed-projections.ts';
import { place, type Storage } from './place.ts';
import { RequirementSum } from './requirements.ts';
import { ALIGNMENT, BINDING_UNIT, packSlabs, roundUp } from './slabs.ts';
import { conflictsOf, scratchShape, storagesOf } from './storages.ts';
import { Unique } from './unique.ts';
import { type WeightStorage, weightRequest } from './weight-request.ts';

export interface LowerOptions extends WeightStorage {
  component: string;
  label: string;
  facts: Record<string, unknown>;
  /** Told of each dispatch whose schedule can be measured. */
  observe?: ProductObserver | undefined;
}

/** A product and the kernel it got. */
export type ProductObserver = (
  product:
    | { family: 'matmul'; spec: MatmulSpec }
    | { family: 'conv2d'; spec: Conv2dSpec }
    | { family: 'attention'; spec: AttentionSpec },
  kernel: KernelSource,
) => void;

export function lower(graph: Graph, o: LowerOptions): Program {
  const placement = place(graph, scratchShape);
  const slabs = packSlabs(
    storagesOf(placement),
    conflictsOf(placement),
    Math.min(o.target.limits.maxBufferSize, o.target.limits.maxStorageBufferBindingSize * 2),
  );
  const ports: Port[] = graph.ports.map((p) => {
    const t = (p.final ?? p.initial)!;
    const bytes = roundUp(t.rows * t.cols * (t.type === 'f16' ? 2 : 4), BINDING_UNIT);
    return { name: p.name, direction: p.direction, type: t.type, shape: [t.rows, t.cols], bytes };
  });
  const kernels = new Unique<Kernel>((k) => `${k.bindings.join()}\n${k.wgsl}`);
  const weights = new Unique<WeightRequest>((w) => JSON.stringify(w));
  const constants = new Unique<Constant>((c) => c.data);
  const dispatches: Dispatch[] = [];
  const requires = new RequirementSum();
  const normalised = normalisedTensors(graph);

  const storageRange = (s: Storage, byteStart: number, bytes: number): BufferRange => {
    if (s.port !== undefined) return ['port', ports.findIndex((p) => p.name === s.port), byteStart, bytes];
    const { slab, offset } = slabs.at.get(s)!;
    return ['slab', slab, offset + byteStart, bytes];
  };
  /** Where a tensor is: the aligned range to bind, and the view of it inside that range. */
  const locate = (t: Tensor): { view: MatrixView; range: BufferRange } => {
    const { storage, row, col } = placement.homes.get(t)!;
    return locateIn(storage, row, col, t.rows, t.cols);
  };
  const locateIn = (storage: Storage, row: number, col: number, rows: number, cols: number) => {
    const type = storage.type === 'f16' ? 'f16' : 'f32';
    const size = bytesOf(type);
    const start = (row * storage.cols + col) * size;
    const aligned = Math.floor(start / ALIGNMENT) * ALIGNMENT;
    const view: MatrixView = { type, rows, cols, rowStride: storage.cols, offset: (start - aligned) / size };
    const bytes = roundUp((view.offset + (rows - 1) * view.rowStride + cols) * size, BINDING_UNIT);
    return { view, range: storageRange(storage, aligned, bytes) };
  };
  const weight = (t: Tensor): { format: WeightFormat; range: BufferRange } => {
    const request = weightRequest(t, o);
    return { format: request.format, range: ['weight', weights.index(request), 0, request.bytes] };
  };
  const constant = (data: Uint32Array): BufferRange => {
    const bytes = roundUp(data.byteLength, BINDING_UNIT);
    const padded = new Uint8Array(bytes);
    padded.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return ['constant', constants.index({ type: 'u32', data: base64(padded), bytes }), 0, bytes];
  };
  /** Any tensor as a matrix: activations, ports, and f32 weights (biases, norm scales, tables). */
  const matrix = (t: Tensor): { view: MatrixView; range: BufferRange } => {
    if (t.origin.kind !== 'weight') return locate(t);
    return { view: { type: 'f32', rows: t.rows, cols: t.cols, rowStride: t.cols, offset: 0 }, range: weight(t).range };
  };
  /** The right operand of a matmul: a weight, or a port of adapters' factors, which lies there as f32 or f16 weights do. */
  const factor = (t: Tensor) => {
    const held = t.origin.kind === 'weight' ? weight(t) : { format: t.type as 'f32' | 'f16', range: locate(t).range };
    return { stored: { format: held.format as WeightFormat, rows: t.rows, cols: t.cols }, range: held.range };
  };
  // FLUX repeats one block dozens of times: equal specs give equal kernels, so each text is generated once.
  const generated = new Map<string, KernelSource>();
  const generate = <S>(family: (spec: S, target: TargetProfile) => KernelSource, spec: S): KernelSource => {
    const key = `${family.name} ${JSON.stringify(spec)}`;
    const known = generated.get(key) ?? family(spec, o.target);
    generated.set(key, known);
    return known;
  };
  const emit = (node: Node, kernel: KernelSource, bindings: BufferRange[], label = node.label): void => {
    const { wgsl, workgroups, flops, bytes } = kernel;
    const index = kernels.index({ label: kernel.label, wgsl, bindings: allBindings(kernel) });
    const ranges = kernel.sizes ? [...bindings, constant(kernel.sizes)] : bindings;
    dispatches.push({ label, kernel: index, bindings: ranges, workgroups, flops, bytes });
    requires.add(kernel, bindings);
  };
  const epilogue = (node: Node): { epilogue: Epilogue; ranges: BufferRange[]; out: MatrixView } => {
    const result = locate(node.output);
    const inPlace = placement.inPlace.get(node);
    const operands = node.operands.map((t) => {
      const { view, range } = matrix(t);
      const operand: OperandView = {
        type: view.type,
        offset: view.offset,
        strideRow: t.rows === 1 && node.output.rows > 1 ? 0 : view.rowStride,
        strideCol: t.cols === 1 && node.output.cols > 1 ? 0 : 1,
        length: viewLength(view),
      };
      return { operand, range };
    });
    const ranges = operands.filter((_, i) => i !== inPlace).map(({ range }) => range);
    return {
      epilogue: {
        expr: node.expr,
        operands: operands.map(({ operand }) => operand),
        ...(typeof inPlace === 'number' ? { inPlace } : {}),
      },
      ranges: [...ranges, result.range],
      out: result.view,
    };
  };

  const normed = normedProjections(graph, placement);
  /** Head norms that the kernel before them has done. */
  const done = new Set<Node>();
  for (const node of placement.steps) {
    const { op, inputs } = node;
    if (done.has(node)) continue;
    switch (op.kind) {
      case 'matmul': {
        const a = inputs.map(matrix);
        const b = factor(op.weight);
        const beside = op.beside && { a: matrix(op.beside.input), b: factor(op.beside.weight) };
        const { epilogue: finish, ranges, out } = epilogue(node);
        const shape = { m: node.output.rows, n: node.output.cols };
        const plain: MatmulSpec = {
          ...shape,
          segments: a.map(({ view }) => ({ a: view })),
          weight: b.stored,
          ...(beside ? { beside: { a: beside.a.view, weight: beside.b.stored } } : {}),
          ...(inputs.every((t) => normalised.has(t)) ? { normalised: true } : {}),
          epilogue: finish,
          out,
        };
        const besideRanges = beside ? [beside.a.range, beside.b.range] : [];
        const norm = normed.get(node);
        const tables = norm?.inputs.slice(1).map(matrix) ?? [];
        const withHeads = norm && { ...plain, heads: headsOf(norm, tables[2]?.view) };
        const fused = withHeads !== undefined && normsHeads(withHeads, o.target);
        if (fused) done.add(norm!);
        const spec = fused ? withHeads : plain;
        const kernel = generate(matmul, spec);
        o.observe?.({ family: 'matmul', spec }, kernel);
        const tableRanges = fused ? tables.map(({ range }) => range) : [];
        emit(node, kernel, [...a.map(({ range }) => range), b.range, ...besideRanges, ...tableRanges, ...ranges]);
        break;
      }
      case 'conv2d': {
        const x = matrix(inputs[0]!);
        const b = weight(op.weight);
        const { epilogue: finish, ranges, out } = epilogue(node);
        const stored = { format: b.format, rows: op.weight.rows, cols: op.weight.cols };
        const shape = { ...op.geometry, cin: inputs[0]!.cols, cout: node.output.cols };
        const spec: Conv2dSpec = {
          ...shape,
          x: x.view,
          weight: stored,
          ...(normalised.has(inputs[0]!) ? { normalised: true } : {}),
          epilogue: finish,
          out,
        };
        const kernel = generate(conv2d, spec);
        o.observe?.({ family: 'conv2d', spec }, kernel);
        emit(node, kernel, [x.range, b.range, ...ranges]);
        break;
      }
      case 'rowNorm': {
        const x = matrix(inputs[0]!);
        const { epilogue: finish, ranges, out } = epilogue(node);
        const spec = { kind: op.norm, eps: op.eps, x: x.view, epilogue: finish, out };
        emit(node, generate(rowNorm, spec), [x.range, ...ranges]);
        break;
      }
      case 'headNorm': {
        const { storage, row, col } = placement.homes.get(node.output)!;
        const rope = inputs[3] && matrix(inputs[3]);
        const heads = headsOf(node, rope?.view);
        const width = op.heads * op.size;
        (['query', 'key'] as const).forEach((part, i) => {
          const { view, range } = locateIn(storage, row, col + i * width, node.output.rows, width);
          const spec = { ...heads, x: view, out: view, inPlace: true, scaleType: 'f32' as const };
          const bindings = [matrix(inputs[1 + i]!).range, ...(rope ? [rope.range] : []), range];
          emit(node, generate(headNorm, spec), bindings, `${node.label} ${part}`);
        });
        break;
      }
      case 'attention': {
        const [q, k, v, bias] = inputs.map(matrix);
        const out = locate(node.output);
        const spec = {
          heads: op.heads,
          size: op.size,
          q: q!.view,
          k: k!.view,
          v: v!.view,
          out: out.view,
          scale: op.scale,
          causal: op.causal,
          ...(op.validKeys === undefined ? {} : { validKeys: op.validKeys }),
          ...(bias ? { bias: { ...bias.view, length: viewLength(bias.view), queries: node.output.rows } } : {}),
        };
        const ranges = [q!, k!, v!, ...(bias ? [bias] : []), out].map(({ range }) => range);
        const kernel = generate(attention, spec);
        o.observe?.({ family: 'attention', spec }, kernel);
        emit(node, kernel, ranges);
        break;
      }
      case 'guideRows': {
        const [positive, negative, settings] = inputs.map(matrix);
        const out = locate(node.output);
        const views = { positive: positive!.view, negative: negative!.view, settings: settings!.view, out: out.view };
        const ranges = [positive!, negative!, settings!, out].map(({ range }) => range);
        emit(node, generate(guideRows, views), ranges);
        break;
      }
      case 'groupNorm': {
        const [x, gamma, beta] = inputs.map(matrix);
        const out = locate(node.output);
        const scratch = placement.scratch.get(node)!;
        const partial = locateIn(scratch, 0, 0, scratch.rows, scratch.cols);
        const spec = { x: x!.view, groups: op.groups, eps: op.eps, out: out.view, partial: partial.view };
        const shape = constant(groupNormParameters(spec));
        emit(node, generate(groupNormPartial, spec), [x!.range, shape, partial.range], `${node.label} statistics`);
        emit(node, generate(groupNormFinish, spec), [partial.range, shape, gamma!.range, beta!.range, out.range]);
        break;
      }
      case 'pointwise': {
        const { epilogue: finish, ranges, out } = epilogue(node);
        emit(node, generate(pointwise, { epilogue: finish, out }), ranges);
        break;
      }
      case 'gather': {
        const table = matrix(inputs[0]!);
        const out = locate(node.output);
        const spec = { table: table.view, indices: inputs[1]!.cols, out: out.view };
        emit(node, generate(gather, spec), [
          table.range,
          constant((inputs[1]!.origin as { kind: 'constant'; data: Uint32Array }).data),
          out.range,
        ]);
        break;
      }
      case 'blendTile': {
        const [tile, position] = [matrix(inputs[1]!), matrix(inputs[2]!)];
        const sum = locate(node.output);
        const { height, width, tileHeight, tileWidth } = op;
        const shape = { height, width, tileHeight, tileWidth };
        const spec = { ...shape, tile: tile.view, position: position.view, sum: sum.view };
        emit(node, generate(blendTile, spec), [tile.range, position.range, sum.range]);
        break;
      }
      case 'pack':
      case 'unpack': {
        const [x, out] = [matrix(inputs[0]!), locate(node.output)];
        const spec = { ...op, x: x.view, out: out.view };
        emit(node, generate(rearrange, spec), [x.range, out.range]);
        break;
      }
      case 'imageToTensor': {
        const [x, out] = [locate(inputs[0]!), locate(node.output)];
        const spec = { kind: 'image-to-tensor' as const, height: op.height, width: op.width, out: out.view };
        emit(node, generate(rearrange, spec), [x.range, out.range]);
        break;
      }
      case 'tensorToImage': {
        const [x, out] = [matrix(inputs[0]!), locate(node.output)];
        const spec = { kind: 'tensor-to-image' as const, height: op.height, width: op.width, x: x.view };
        emit(node, generate(rearrange, spec), [x.range, out.range]);
        break;
      }
      default:
        throw new KontextError('program-invalid', `${node.label}: ${op.kind} cannot be a dispatch.`);
    }
  }
  return {
    schema: PROGRAM_SCHEMA,
    component: o.component,
    label: o.label,
    requires: requires.finish(ports, slabs.slabs, weights.items),
    ports,
    slabs: slabs.slabs,
    weights: weights.items,
    constants: constants.items,
    kernels: kernels.items,
    dispatches,
    facts: o.facts,
  };
}

/** What a head norm does, wherever it is done. */
function headsOf({ op }: Node, rope: MatrixView | undefined): NormedHeads {
  if (op.kind !== 'headNorm') throw new KontextError('program-invalid', `${op.kind} is no norm of heads.`);
  const { heads, size, eps } = op;
  return { heads, size, eps, ...(rope ? { rope: { ...rope, length: viewLength(rope) } } : {}) };
}

function base64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
