// The tensor graph: what a model builder makes and the passes rewrite. Same type before and after every pass.
// Every activation is a matrix (tokens × channels, pixels × channels): two dimensions are all that FLUX's parts need.

import type { Expr } from '../expr/expr.ts';

/** Where a tensor's values come from. */
export type Origin =
  | { kind: 'node' }
  | { kind: 'port'; port: string }
  | { kind: 'weight'; weight: WeightOrigin }
  | { kind: 'constant'; data: Uint32Array };

export interface WeightOrigin {
  /** Name in the original checkpoint. */
  name: string;
  /** Only these entries of the checkpoint's first axis. */
  rows?: [number, number];
  /** `matrix` weights may be stored in 16 bits or quantised, `vector`s (biases, norm scales, tables) stay f32. */
  role: 'matrix' | 'vector' | 'convolution';
  /** Convolution only: input channels in the checkpoint, and after padding to a multiple of four. */
  channels?: { stored: number; padded: number };
}

export interface Tensor {
  readonly id: number;
  readonly rows: number;
  readonly cols: number;
  /** Storage type; the builder says f32 everywhere, the pass `assignTypes` narrows matmul operands. */
  type: 'f32' | 'f16' | 'u32';
  label: string;
  readonly origin: Origin;
}

export type Op =
  /**
   * out = epilogue(Σ_s inputs[s] · weight[:, k_s]ᵀ + beside.input · beside.weightᵀ); several inputs are one input split along
   * its channels. `beside` is an adapter's low-rank path, with a weight of its own.
   */
  | { kind: 'matmul'; weight: Tensor; beside?: { input: Tensor; weight: Tensor } }
  /** Implicit GEMM over NHWC pixels; reads outside the image are zero. */
  | { kind: 'conv2d'; weight: Tensor; geometry: ConvGeometry }
  | { kind: 'rowNorm'; norm: 'layer' | 'rms'; eps: number }
  /** inputs = [qkv, query scale, key scale, rope?]; out = qkv with its q and k heads normalised and rotated. */
  | { kind: 'headNorm'; heads: number; size: number; eps: number }
  /** inputs = [q, k, v, bias?]. */
  | { kind: 'attention'; heads: number; size: number; scale: number; causal: boolean; validKeys?: number }
  /** inputs = [z⁺, z⁻, settings]; out = z⁺ pushed away from z⁻, row by row; see the kernel. */
  | { kind: 'guideRows' }
  /** inputs = [x, gamma, beta]; out [2, channels] = scale and shift that apply the norm. */
  | { kind: 'groupNorm'; groups: number; eps: number }
  | { kind: 'pointwise' }
  /** inputs = [table, indices]. */
  | { kind: 'gather' }
  | { kind: 'pack' | 'unpack'; height: number; width: number; channels: number }
  | { kind: 'imageToTensor' | 'tensorToImage'; height: number; width: number }
  /** inputs = [sum, tile, position]; out = sum with the tile added, weighted by its ramps; see the kernel. */
  | { kind: 'blendTile'; height: number; width: number; tileHeight: number; tileWidth: number }
  /** A view of inputs[0]. */
  | { kind: 'slice'; row: number; col: number }
  /** Parts are written where the whole lies; no copy unless a part lives elsewhere already. */
  | { kind: 'concatRows' | 'concatCols' };

export interface ConvGeometry {
  inHeight: number;
  inWidth: number;
  outHeight: number;
  outWidth: number;
  kernel: 1 | 3;
  stride: 1 | 2;
  padTop: number;
  padLeft: number;
  upsample: 1 | 2;
}

export interface Node {
  readonly label: string;
  readonly op: Op;
  /** The operation's own matrices. */
  readonly inputs: Tensor[];
  /** What happens to each computed value before it is stored; `operand(i)` is `operands[i]`. */
  readonly expr: Expr;
  /** Read at the output's position; one row or one column broadcasts. */
  readonly operands: Tensor[];
  readonly output: Tensor;
}

export interface GraphPort {
  name: string;
  direction: 'in' | 'out' | 'inout';
  /** The tensor the port holds before the run; absent for `out`. */
  initial?: Tensor;
  /** The tensor the port holds after the run; absent for `in`. */
  final?: Tensor;
}

export interface Graph {
  nodes: Node[];
  ports: GraphPort[];
}

/** Operations whose result can pass through an expression before it is stored. */
export const HAS_EPILOGUE: ReadonlySet<Op['kind']> = new Set(['matmul', 'conv2d', 'rowNorm', 'pointwise']);

/** Operations that only exist as updates of their first input's memory. */
export const updatesInput = (op: Op): boolean => op.kind === 'headNorm' || op.kind === 'blendTile';

export const isView = (op: Op): boolean => op.kind === 'slice' || op.kind === 'concatRows' || op.kind === 'concatCols';

/** Every tensor a node reads, weights included. */
export function reads(node: Node): Tensor[] {
  const weight = node.op.kind === 'matmul' || node.op.kind === 'conv2d' ? [node.op.weight] : [];
  const beside = node.op.kind === 'matmul' && node.op.beside ? [node.op.beside.input, node.op.beside.weight] : [];
  return [...node.inputs, ...weight, ...beside, ...node.operands];
}

/** Nodes that read each tensor. */
export function usesOf(graph: Pick<Graph, 'nodes'>): Map<Tensor, Node[]> {
  const uses = new Map<Tensor, Node[]>();
  for (const node of graph.nodes) {
    for (const t of new Set(reads(node))) {
      const list = uses.get(t);
      if (list) list.push(node);
      else uses.set(t, [node]);
    }
  }
  return uses;
}

/** One line a node, for snapshots and for `KONTEXT_DEBUG=plan`. */
export function printGraph(graph: Graph): string {
  const name = (t: Tensor): string => {
    if (t.origin.kind === 'weight') return t.origin.weight.name;
    if (t.origin.kind === 'port') return `@${t.origin.port}`;
    return t.origin.kind === 'constant' ? 'constant' : `%${t.id}`;
  };
  return graph.nodes
    .map((n) => {
      const operands = n.operands.length ? ` with ${n.operands.map(name).join(', ')}` : '';
      const type = `${n.output.type}[${n.output.rows}, ${n.output.cols}]`;
      return `${name(n.output)}: ${type} = ${n.op.kind}(${n.inputs.map(name).join(', ')})${operands}  // ${n.label}`;
    })
    .join('\n');
}

/** Throws when a graph breaks its own rules: read before written, written twice, a shape that does not fit. */
export function verifyGraph(graph: Graph): void {
  const written = new Set<Tensor>();
  for (const node of graph.nodes) {
    const fail = (what: string): never => {
      throw new Error(`graph: ${node.label} (${node.op.kind}): ${what}`);
    };
    for (const t of reads(node)) {
      if (t.origin.kind === 'node' && !written.has(t)) fail(`reads ${t.label} before it is written`);
    }
    if (written.has(node.output)) fail('writes a tensor that is already written');
    if (node.output.origin.kind !== 'node') fail('writes a tensor that is not an activation');
    written.add(node.output);
    for (const t of node.operands) {
      const fits = (mine: number, out: number): boolean => mine === out || mine === 1;
      if (!fits(t.rows, node.output.rows) || !fits(t.cols, node.output.cols)) {
        fail(
          `operand ${t.label} [${t.rows}, ${t.cols}] does not broadcast to [${node.output.rows}, ${node.output.cols}]`,
        );
      }
    }
    if (node.op.kind === 'matmul') {
      const k = node.inputs.reduce((sum, t) => sum + t.cols, 0);
      if (k !== node.op.weight.cols) fail(`inputs have ${k} channels, the weight has ${node.op.weight.cols}`);
      if (node.op.weight.rows !== node.output.cols) fail('weight rows differ from output channels');
      const { beside } = node.op;
      if (beside && (beside.input.cols !== beside.weight.cols || beside.weight.rows !== node.output.cols)) {
        fail('the path beside it has other shapes');
      }
    }
  }
  for (const port of graph.ports) {
    if (port.final && !written.has(port.final)) throw new Error(`graph: output ${port.name} is never written`);
  }
}
