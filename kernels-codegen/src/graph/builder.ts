// Builds graphs: the vocabulary the model files are written in.
// Checks shapes while building, so a wrong model fails at its own line.

import type { ModuleRoom } from '../../../runtime/src/program/adapter-rooms.ts';
import type { Expr } from '../expr/expr.ts';
import * as e from '../expr/expr.ts';
import type { ConvGeometry, Graph, GraphPort, Node, Op, Tensor, WeightOrigin } from './graph.ts';
import { type AdapterRoom, rankOf } from './room.ts';

export interface LinearOptions {
  /** Whether `<name>.bias` exists. */
  bias?: boolean;
  /** Use only these output features `[first, end)` of the checkpoint's layer. */
  rows?: [number, number];
  /** What the result is called when the layer is computed in parts; the layer's name by default. */
  label?: string;
  /** Layers that the checkpoint stacks in this one; room for adapters is for each of them. */
  stacked?: number;
}

export interface ConvOptions {
  height: number;
  width: number;
  kernel: 1 | 3;
  stride?: 1 | 2;
  upsample?: 1 | 2;
  /** Input channels of the checkpoint's weight when `x` has been padded with zero channels. */
  storedChannels?: number;
  /** Whether `<name>.bias` exists. */
  bias?: boolean;
}

export class Builder {
  private readonly nodes: Node[] = [];
  private readonly ports: GraphPort[] = [];
  private readonly weights = new Map<string, Tensor>();
  /** Low-rank halves of linear layers, by layer and inputs. */
  private readonly lowered = new Map<string, Tensor>();
  private readonly rooms = new Map<string, ModuleRoom>();
  private nextId = 0;

  /** @param room ranks of the paths for adapters beside the linear layers; none by default */
  constructor(private readonly room?: AdapterRoom) {}

  finish(): Graph {
    return { nodes: this.nodes, ports: this.ports };
  }

  /** Where the program takes adapters' factors; after {@link finish}. */
  get adapterRooms(): ModuleRoom[] {
    return [...this.rooms.values()];
  }

  input(name: string, rows: number, cols: number, type: 'f32' | 'u32' = 'f32'): Tensor {
    const t = this.tensor(rows, cols, name, { kind: 'port', port: name }, type);
    this.ports.push({ name, direction: 'in', initial: t });
    return t;
  }

  /** A port that the run updates; close the loop with {@link update}. */
  state(name: string, rows: number, cols: number): Tensor {
    const t = this.tensor(rows, cols, name, { kind: 'port', port: name });
    this.ports.push({ name, direction: 'inout', initial: t });
    return t;
  }

  update(state: Tensor, value: Tensor): void {
    const port = this.ports.find((p) => p.initial === state && p.direction === 'inout');
    if (!port) throw new Error(`builder: ${state.label} is not a state port`);
    port.final = value;
  }

  output(name: string, value: Tensor): void {
    // A port is a buffer of its own: a part of another value is copied there, like a value that has a port already.
    const part = this.nodes.some((n) => n.output === value && n.op.kind === 'slice');
    const made = value.origin.kind === 'node' && !part && !this.isFinal(value);
    this.ports.push({ name, direction: 'out', final: made ? value : this.copy(value, name) });
  }

  /** A vector stored as f32 `[1, n]`. */
  vector(name: string, n: number): Tensor {
    return this.weight({ name, role: 'vector' }, 1, n);
  }

  /** A table stored as f32 `[rows, cols]`, or its first `rows` rows. */
  table(name: string, rows: number, cols: number, take?: [number, number]): Tensor {
    return this.weight({ name, role: 'vector', rows: take }, rows, cols);
  }

  constantIndices(data: Uint32Array, label: string): Tensor {
    return this.tensor(1, data.length, label, { kind: 'constant', data }, 'u32');
  }

  /** y = x · Wᵀ + b with `<name>.weight` `[features, x.cols]`. Several `x` are concatenated channels. */
  linear(x: Tensor | Tensor[], name: string, features: number, options: LinearOptions = {}): Tensor {
    const inputs = Array.isArray(x) ? x : [x];
    const k = inputs.reduce((sum, t) => sum + t.cols, 0);
    const weight = this.weight({ name: `${name}.weight`, role: 'matrix', rows: options.rows }, features, k);
    const label = options.label ?? name;
    const product = options.bias === false ? label : `${label} without bias`;
    const rank = rankOf(this.room, name, options.stacked ?? 1);
    const op: Op = {
      kind: 'matmul',
      weight,
      ...(rank > 0 ? { beside: this.beside(inputs, name, features, rank, options) } : {}),
    };
    const y = this.node(op, inputs, inputs[0]!.rows, features, product);
    if (options.bias === false) return y;
    const bias = this.weight({ name: `${name}.bias`, role: 'vector', rows: options.rows }, 1, features);
    return this.map([y, bias], e.add(e.operand(0), e.operand(1)), label);
  }

  layerNorm(x: Tensor, eps: number, label: string): Tensor {
    return this.node({ kind: 'rowNorm', norm: 'layer', eps }, [x], x.rows, x.cols, label);
  }

  rmsNorm(x: Tensor, eps: number, label: string): Tensor {
    return this.node({ kind: 'rowNorm', norm: 'rms', eps }, [x], x.rows, x.cols, label);
  }

  headNorm(
    qkv: Tensor,
    o: { heads: number; size: number; query: Tensor; key: Tensor; rope?: Tensor; label: string },
  ): Tensor {
    const op: Op = { kind: 'headNorm', heads: o.heads, size: o.size, eps: 1e-6 };
    const inputs = o.rope ? [qkv, o.query, o.key, o.rope] : [qkv, o.query, o.key];
    return this.node(op, inputs, qkv.rows, qkv.cols, o.label);
  }

  attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: { heads: number; scale: number; causal?: boolean; bias?: Tensor; validKeys?: number; label: string },
  ): Tensor {
    const size = q.cols / o.heads;
    if (!Number.isInteger(size)) throw new Error(`builder: ${q.cols} channels do not divide into ${o.heads} heads`);
    const op: Op = {
      kind: 'attention',
      heads: o.heads,
      size,
      scale: o.scale,
      causal: o.causal ?? false,
      validKeys: o.validKeys,
    };
    return this.node(op, o.bias ? [q, k, v, o.bias] : [q, k, v], q.rows, q.cols, o.label);
  }

  /** Normalised attention guidance: `positive` pushed away from `negative`, with `settings` `[1, 4]` = (scale, τ, α, 0). */
  guideRows(positive: Tensor, negative: Tensor, settings: Tensor, label: string): Tensor {
    const inputs = [positive, negative, settings];
    return this.node({ kind: 'guideRows' }, inputs, positive.rows, positive.cols, label);
  }

  /** Scale and shift `[2, channels]` that apply GroupNorm with `<name>.weight` and `<name>.bias`. */
  groupNorm(x: Tensor, name: string, groups: number, eps: number): Tensor {
    const affine = [this.vector(`${name}.weight`, x.cols), this.vector(`${name}.bias`, x.cols)];
    return this.node({ kind: 'groupNorm', groups, eps }, [x, ...affine], 2, x.cols, name);
  }

  /**
   * Scale and shift `[2, channels]` that would make each of `groups` blocks of columns of mean 0 and variance 1: their moments, which
   * `meanIn` of `models/moments.ts` reads.
   */
  moments(x: Tensor, ones: Tensor, zeros: Tensor, groups: number, label: string): Tensor {
    return this.node({ kind: 'groupNorm', groups, eps: 1e-12 }, [x, ones, zeros], 2, x.cols, label);
  }

  conv2d(x: Tensor, name: string, channels: number, o: ConvOptions): Tensor {
    const stride = o.stride ?? 1;
    const upsample = o.upsample ?? 1;
    if (x.rows !== o.height * o.width)
      throw new Error(`builder: ${name}: ${x.rows} pixels are not ${o.height}×${o.width}`);
    // Stride 2 pads right and bottom only, (0, 1, 0, 1) in the reference; stride 1 pads all sides.
    const pad = o.kernel === 3 && stride === 1 ? 1 : 0;
    const geometry: ConvGeometry = {
      inHeight: o.height,
      inWidth: o.width,
      outHeight: (o.height * upsample) / stride,
      outWidth: (o.width * upsample) / stride,
      kernel: o.kernel,
      stride,
      padTop: pad,
      padLeft: pad,
      upsample,
    };
    const stored = o.storedChannels ?? x.cols;
    const weight = this.weight(
      { name: `${name}.weight`, role: 'convolution', channels: { stored, padded: x.cols } },
      channels,
      o.kernel * o.kernel * x.cols,
    );
    const pixels = geometry.outHeight * geometry.outWidth;
    const label = o.bias === false ? name : `${name} without bias`;
    const y = this.node({ kind: 'conv2d', weight, geometry }, [x], pixels, channels, label);
    if (o.bias === false) return y;
    return this.map([y, this.vector(`${name}.bias`, channels)], e.add(e.operand(0), e.operand(1)), name);
  }

  /** Any elementwise expression; `operand(i)` is `values[i]`, one row or column broadcasts. */
  map(values: Tensor[], expr: Expr, label: string): Tensor {
    const rows = Math.max(...values.map((t) => t.rows));
    const cols = Math.max(...values.map((t) => t.cols));
    // Each value once: a second binding of what is updated in place would read what the first writes.
    const distinct = [...new Set(values)];
    const once = e.substitute(expr, e.acc, (i) => e.operand(distinct.indexOf(values[i]!)));
    return this.node({ kind: 'pointwise' }, [], rows, cols, label, once, distinct);
  }

  add(a: Tensor, b: Tensor, label: string): Tensor {
    return this.map([a, b], e.add(e.operand(0), e.operand(1)), label);
  }

  gather(table: Tensor, indices: Uint32Array, label: string): Tensor {
    const constant = this.constantIndices(indices, `${label} indices`);
    return this.node({ kind: 'gather' }, [table, constant], indices.length, table.cols, label);
  }

  /** `[height·width, c]` latents to `[height/2·width/2, 4c]` tokens, or back. */
  pack(x: Tensor, height: number, width: number, label: string): Tensor {
    return this.node({ kind: 'pack', height, width, channels: x.cols }, [x], x.rows / 4, x.cols * 4, label);
  }

  unpack(x: Tensor, height: number, width: number, label: string): Tensor {
    return this.node({ kind: 'unpack', height, width, channels: x.cols / 4 }, [x], x.rows * 4, x.cols / 4, label);
  }

  imageToTensor(image: Tensor, height: number, width: number): Tensor {
    return this.node({ kind: 'imageToTensor', height, width }, [image], height * width, 4, 'pixels');
  }

  tensorToImage(x: Tensor, height: number, width: number): Tensor {
    const image = this.tensor(1, height * width, 'image', { kind: 'node' }, 'u32');
    this.push({ kind: 'tensorToImage', height, width }, [x], image, e.acc, []);
    return image;
  }

  blendTile(
    sum: Tensor,
    tile: Tensor,
    position: Tensor,
    o: { height: number; width: number; tileHeight: number; tileWidth: number },
  ): Tensor {
    return this.node({ kind: 'blendTile', ...o }, [sum, tile, position], sum.rows, sum.cols, 'blend tile');
  }

  rows(x: Tensor, first: number, count: number): Tensor {
    return this.node({ kind: 'slice', row: first, col: 0 }, [x], count, x.cols, `${x.label}[rows ${first}]`);
  }

  cols(x: Tensor, first: number, count: number): Tensor {
    return this.node({ kind: 'slice', row: 0, col: first }, [x], x.rows, count, `${x.label}[cols ${first}]`);
  }

  concatRows(parts: Tensor[], label: string): Tensor {
    if (parts.length === 1) return parts[0]!;
    const rows = parts.reduce((sum, t) => sum + t.rows, 0);
    return this.node({ kind: 'concatRows' }, parts, rows, parts[0]!.cols, label);
  }

  concatCols(parts: Tensor[], label: string): Tensor {
    const cols = parts.reduce((sum, t) => sum + t.cols, 0);
    return this.node({ kind: 'concatCols' }, parts, parts[0]!.rows, cols, label);
  }

  /** The low-rank path of a linear layer: `scale ∘ x·downᵀ`, and the port of `up` that it is multiplied with. */
  private beside(
    inputs: Tensor[],
    module: string,
    features: number,
    rank: number,
    options: LinearOptions,
  ): { input: Tensor; weight: Tensor } {
    const cols = inputs.reduce((sum, t) => sum + t.cols, 0);
    const port = (name: string, height: number, width: number): Tensor =>
      this.ports.find((p) => p.name === name)?.initial ?? this.input(name, height, width);
    let room = this.rooms.get(module);
    if (!room) {
      room = { module, rank, cols, down: `adapter down ${module}`, up: [], scale: `adapter scale ${module}` };
      this.rooms.set(module, room);
    }
    // Layers computed in parts, and streams that share a layer, read one `down`.
    const key = `${module} ${inputs.map((t) => t.id)}`;
    let low = this.lowered.get(key);
    if (!low) {
      const op: Op = { kind: 'matmul', weight: port(room.down, rank, cols) };
      const scale = port(room.scale, 1, rank);
      const label = `${module} adapter`;
      low = this.node(op, inputs, inputs[0]!.rows, rank, label, e.mul(e.acc, e.operand(0)), [scale]);
      this.lowered.set(key, low);
    }
    const rows = options.rows ?? [0, features];
    const up = `adapter up ${module}${options.rows ? ` ${rows[0]}` : ''}`;
    if (!room.up.some((known) => known.port === up)) room.up.push({ port: up, rows });
    return { input: low, weight: port(up, features, rank) };
  }

  private copy(x: Tensor, label: string): Tensor {
    return this.map([x], e.operand(0), `copy ${label}`);
  }

  private isFinal(t: Tensor): boolean {
    return this.ports.some((p) => p.final === t);
  }

  private weight(weight: WeightOrigin, rows: number, cols: number): Tensor {
    const key = `${weight.name} ${weight.rows}`;
    const known = this.weights.get(key);
    if (known) return known;
    const t = this.tensor(rows, cols, weight.name, { kind: 'weight', weight });
    this.weights.set(key, t);
    return t;
  }

  private node(
    op: Op,
    inputs: Tensor[],
    rows: number,
    cols: number,
    label: string,
    expr: Expr = e.acc,
    operands: Tensor[] = [],
  ): Tensor {
    const output = this.tensor(rows, cols, label, { kind: 'node' });
    this.push(op, inputs, output, expr, operands);
    return output;
  }

  private push(op: Op, inputs: Tensor[], output: Tensor, expr: Expr, operands: Tensor[]): void {
    this.nodes.push({ label: output.label, op, inputs, expr, operands, output });
  }

  private tensor(
    rows: number,
    cols: number,
    label: string,
    origin: Tensor['origin'],
    type: Tensor['type'] = 'f32',
  ): Tensor {
    return { id: this.nextId++, rows, cols, type, label, origin };
  }
}
