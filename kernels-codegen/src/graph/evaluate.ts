// Runs a graph on the CPU in float64: the oracle for models, passes and whole programs.
// Slow and plain on purpose; every operation is written as its formula.

import { evaluate as evaluateExpr, roundHalfEven } from '../expr/expr.ts';
import type { Graph, Node, Tensor } from './graph.ts';

/** A row-major matrix of float64 values. */
export type Values = Float64Array;

export interface Environment {
  /** Values of input and state ports, by name. */
  ports: Readonly<Record<string, ArrayLike<number>>>;
  /** A checkpoint's tensor as `[axis 0, all others]`, convolutions as stored (`[out, in, kh, kw]`). */
  weight: (name: string) => ArrayLike<number>;
}

/** @returns values of every output and state port, by name */
export function evaluateGraph(graph: Graph, env: Environment): Record<string, Values> {
  const values = new Map<Tensor, Values>();
  const get = (t: Tensor): Values => {
    const known = values.get(t);
    if (known) return known;
    const made = leaf(t, env);
    values.set(t, made);
    return made;
  };
  for (const node of graph.nodes) values.set(node.output, finish(node, compute(node, get), get));
  const finals = graph.ports.flatMap((p) => (p.final ? [[p.name, get(p.final)] as const] : []));
  return Object.fromEntries(finals);
}

function leaf(t: Tensor, env: Environment): Values {
  switch (t.origin.kind) {
    case 'port': {
      const data = env.ports[t.origin.port];
      if (!data) throw new Error(`evaluate: no value for port ${t.origin.port}`);
      return Float64Array.from(data);
    }
    case 'constant':
      return Float64Array.from(t.origin.data);
    case 'weight': {
      const { name, rows, channels } = t.origin.weight;
      const all = Float64Array.from(env.weight(name));
      if (channels) return toOhwi(all, t, channels);
      const perRow = rows && (t.rows * t.cols) / (rows[1] - rows[0]);
      return rows && perRow ? all.slice(rows[0] * perRow, rows[1] * perRow) : all;
    }
    default:
      throw new Error(`evaluate: ${t.label} is read before it is written`);
  }
}

/** `[o, i, kh, kw]` to `[o, kh, kw, i padded]`. */
function toOhwi(w: Values, t: Tensor, { stored, padded }: { stored: number; padded: number }): Values {
  const out = new Float64Array(t.rows * t.cols);
  const taps = t.cols / padded;
  for (let o = 0; o < t.rows; o++) {
    for (let i = 0; i < stored; i++) {
      for (let k = 0; k < taps; k++) out[o * t.cols + k * padded + i] = w[(o * stored + i) * taps + k]!;
    }
  }
  return out;
}

/** Applies the epilogue. */
function finish(node: Node, acc: Values, get: (t: Tensor) => Values): Values {
  if (node.expr.op === 'acc' && node.op.kind !== 'pointwise') return acc;
  const { rows, cols } = node.output;
  const operands = node.operands.map((t) => ({
    data: get(t),
    row: t.rows === 1 ? 0 : t.cols,
    col: t.cols === 1 ? 0 : 1,
  }));
  const out = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const at = operands.map((o) => o.data[r * o.row + c * o.col]!);
      out[r * cols + c] = evaluateExpr(node.expr, acc[r * cols + c] ?? 0, at);
    }
  }
  return out;
}

function compute(node: Node, get: (t: Tensor) => Values): Values {
  const { op, inputs, output } = node;
  const x = inputs[0];
  switch (op.kind) {
    case 'pointwise':
      return new Float64Array(0);
    case 'matmul': {
      const main = matmulValues(inputs, op.weight, get);
      if (!op.beside) return main;
      const path = matmulValues([op.beside.input], op.beside.weight, get);
      return main.map((value, i) => value + path[i]!);
    }
    case 'conv2d':
      return conv2dValues(node, get);
    case 'rowNorm':
      return eachRow(get(x!), output.cols, (row) => {
        const mean = op.norm === 'layer' ? row.reduce((a, b) => a + b, 0) / row.length : 0;
        const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / row.length;
        return row.map((v) => (v - mean) / Math.sqrt(variance + op.eps));
      });
    case 'headNorm':
      return headNormValues(node, get);
    case 'attention':
      return attentionValues(node, get);
    case 'guideRows':
      return guidedValues(node, get);
    case 'groupNorm':
      return groupNormValues(node, get);
    case 'gather': {
      const table = get(x!);
      const rows = [...get(inputs[1]!)].map((i) => table.subarray(i * output.cols, (i + 1) * output.cols));
      return Float64Array.from(rows.flatMap((row) => [...row]));
    }
    case 'pack':
      return permutePatches(get(x!), op, (latent, token, from, to) => (to[token] = from[latent]!));
    case 'unpack':
      return permutePatches(get(x!), op, (latent, token, from, to) => (to[latent] = from[token]!));
    case 'imageToTensor': {
      const channel = (word: number, c: number): number => (c < 3 ? (2 * ((word >>> (8 * c)) & 255)) / 255 - 1 : 0);
      return Float64Array.from({ length: output.rows * 4 }, (_, i) => channel(get(x!)[i >> 2]!, i & 3));
    }
    case 'tensorToImage': {
      const byte = (v: number): number => roundHalfEven(Math.min(1, Math.max(0, (v + 1) / 2)) * 255);
      const at = (i: number, c: number): number => byte(get(x!)[i * x!.cols + c]!);
      return Float64Array.from(
        { length: output.cols },
        (_, i) => at(i, 0) + at(i, 1) * 2 ** 8 + at(i, 2) * 2 ** 16 + 255 * 2 ** 24,
      );
    }
    case 'blendTile':
      return blendTileValues(node, get);
    case 'slice': {
      const from = get(x!);
      const out = new Float64Array(output.rows * output.cols);
      for (let r = 0; r < output.rows; r++) {
        const start = (r + op.row) * x!.cols + op.col;
        out.set(from.subarray(start, start + output.cols), r * output.cols);
      }
      return out;
    }
    case 'concatRows':
      return Float64Array.from(inputs.flatMap((t) => [...get(t)]));
    case 'concatCols': {
      const out = new Float64Array(output.rows * output.cols);
      let first = 0;
      for (const t of inputs) {
        for (let r = 0; r < t.rows; r++)
          out.set(get(t).subarray(r * t.cols, (r + 1) * t.cols), r * output.cols + first);
        first += t.cols;
      }
      return out;
    }
    default:
      throw op satisfies never;
  }
}

function matmulValues(inputs: Tensor[], weight: Tensor, get: (t: Tensor) => Values): Values {
  const b = get(weight);
  const [m, n] = [inputs[0]!.rows, weight.rows];
  const out = new Float64Array(m * n);
  let first = 0;
  for (const t of inputs) {
    const a = get(t);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let k = 0; k < t.cols; k++) sum += a[i * t.cols + k]! * b[j * weight.cols + first + k]!;
        out[i * n + j]! += sum;
      }
    }
    first += t.cols;
  }
  return out;
}

function conv2dValues(node: Node, get: (t: Tensor) => Values): Values {
  if (node.op.kind !== 'conv2d') throw new Error('evaluate: not a convolution');
  const { geometry: g, weight } = node.op;
  const x = get(node.inputs[0]!);
  const w = get(weight);
  const cin = node.inputs[0]!.cols;
  const cout = weight.rows;
  const out = new Float64Array(g.outHeight * g.outWidth * cout);
  for (let oy = 0; oy < g.outHeight; oy++) {
    for (let ox = 0; ox < g.outWidth; ox++) {
      for (let tap = 0; tap < g.kernel * g.kernel; tap++) {
        const iy = oy * g.stride + Math.floor(tap / g.kernel) - g.padTop;
        const ix = ox * g.stride + (tap % g.kernel) - g.padLeft;
        if (iy < 0 || ix < 0 || iy >= g.inHeight * g.upsample || ix >= g.inWidth * g.upsample) continue;
        const pixel = (Math.floor(iy / g.upsample) * g.inWidth + Math.floor(ix / g.upsample)) * cin;
        for (let o = 0; o < cout; o++) {
          let sum = 0;
          for (let c = 0; c < cin; c++) sum += x[pixel + c]! * w[o * weight.cols + tap * cin + c]!;
          out[(oy * g.outWidth + ox) * cout + o]! += sum;
        }
      }
    }
  }
  return out;
}

function headNormValues(node: Node, get: (t: Tensor) => Values): Values {
  if (node.op.kind !== 'headNorm') throw new Error('evaluate: not a head norm');
  const { heads, size, eps } = node.op;
  const [qkv, query, key, rope] = node.inputs;
  const out = get(qkv!).slice();
  const table = rope && get(rope);
  for (let r = 0; r < qkv!.rows; r++) {
    for (let h = 0; h < 2 * heads; h++) {
      const scale = get(h < heads ? query! : key!);
      const head = out.subarray(r * qkv!.cols + h * size, r * qkv!.cols + (h + 1) * size);
      const rms = Math.sqrt(head.reduce((a, b) => a + b * b, 0) / size + eps);
      for (let i = 0; i < size; i++) head[i] = (head[i]! / rms) * scale[i]!;
      for (let i = 0; table && i < size; i += 2) {
        const [a, b, cos, sin] = [head[i]!, head[i + 1]!, table[r * size + i]!, table[r * size + i + 1]!];
        head[i] = a * cos - b * sin;
        head[i + 1] = a * sin + b * cos;
      }
    }
  }
  return out;
}

function attentionValues(node: Node, get: (t: Tensor) => Values): Values {
  if (node.op.kind !== 'attention') throw new Error('evaluate: not attention');
  const { heads, size, scale, causal, validKeys } = node.op;
  const [q, k, v, bias] = node.inputs;
  const width = heads * size;
  const out = new Float64Array(q!.rows * width);
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < q!.rows; i++) {
      const keys = Math.min(causal ? i + 1 : k!.rows, validKeys ?? k!.rows);
      const scores = Array.from({ length: keys }, (_, j) => {
        let dot = 0;
        for (let d = 0; d < size; d++) dot += get(q!)[i * width + h * size + d]! * get(k!)[j * width + h * size + d]!;
        const offset = bias ? get(bias)[(j - i + q!.rows - 1) * heads + h]! : 0;
        return dot * scale + offset;
      });
      const most = Math.max(...scores);
      const weights = scores.map((s) => Math.exp(s - most));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let j = 0; j < keys; j++) {
        for (let d = 0; d < size; d++) {
          out[i * width + h * size + d]! += (weights[j]! / total) * get(v!)[j * width + h * size + d]!;
        }
      }
    }
  }
  return out;
}

function groupNormValues(node: Node, get: (t: Tensor) => Values): Values {
  if (node.op.kind !== 'groupNorm') throw new Error('evaluate: not a group norm');
  const [x, gamma, beta] = node.inputs;
  const [data, channels] = [get(x!), x!.cols];
  const perGroup = channels / node.op.groups;
  const out = new Float64Array(2 * channels);
  for (let group = 0; group < node.op.groups; group++) {
    const values: number[] = [];
    for (let p = 0; p < x!.rows; p++) {
      for (let c = 0; c < perGroup; c++) values.push(data[p * channels + group * perGroup + c]!);
    }
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
    for (let c = group * perGroup; c < (group + 1) * perGroup; c++) {
      out[c] = get(gamma!)[c]! / Math.sqrt(variance + node.op.eps);
      out[channels + c] = get(beta!)[c]! - mean * out[c]!;
    }
  }
  return out;
}

function blendTileValues(node: Node, get: (t: Tensor) => Values): Values {
  if (node.op.kind !== 'blendTile') throw new Error('evaluate: not a tile');
  const { width, height, tileWidth, tileHeight } = node.op;
  const [sum, tile, position] = node.inputs.map(get) as [Values, Values, Values];
  const channels = node.inputs[1]!.cols;
  const out = sum.slice();
  const ramp = (distance: number, fade: number): number => (fade > 0 ? Math.min(1, (distance + 0.5) / fade) : 1);
  const [top, left, fadeTop, fadeLeft, fadeBottom, fadeRight] = position as unknown as number[];
  for (let y = 0; y < Math.min(tileHeight, height - top!); y++) {
    for (let x = 0; x < Math.min(tileWidth, width - left!); x++) {
      const vertical = ramp(y, fadeTop!) * ramp(tileHeight - 1 - y, fadeBottom!);
      const weight = vertical * ramp(x, fadeLeft!) * ramp(tileWidth - 1 - x, fadeRight!);
      const to = ((top! + y) * width + left! + x) * (channels + 1);
      for (let c = 0; c < channels; c++) out[to + c]! += weight * tile[(y * tileWidth + x) * channels + c]!;
      out[to + channels]! += weight;
    }
  }
  return out;
}

function guidedValues({ inputs, output: { cols } }: Node, get: (t: Tensor) => Values): Values {
  const [positive, negative, settings] = inputs.map(get) as [Values, Values, Values];
  const [scale, tau, alpha] = settings as unknown as [number, number, number];
  const norm = (values: Values): number => values.reduce((sum, v) => sum + Math.abs(v), 0);
  const out = new Float64Array(positive.length);
  for (let at = 0; at < out.length; at += cols) {
    const p = positive.subarray(at, at + cols);
    const guided = p.map((v, i) => scale * v - (scale - 1) * negative[at + i]!);
    const ratio = norm(guided) / norm(p);
    const bounded = ratio > tau ? tau / ratio : 1;
    out.set(
      p.map((v, i) => alpha * bounded * guided[i]! + (1 - alpha) * v),
      at,
    );
  }
  return out;
}

function eachRow(x: Values, cols: number, f: (row: Values) => Values): Values {
  const out = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += cols) out.set(f(x.subarray(at, at + cols)), at);
  return out;
}

function permutePatches(
  from: Values,
  { height, width, channels }: { height: number; width: number; channels: number },
  move: (latent: number, token: number, from: Values, to: Values) => void,
): Values {
  const to = new Float64Array(from.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) {
        const token = (y >> 1) * (width / 2) + (x >> 1);
        const channel = c * 4 + (y & 1) * 2 + (x & 1);
        move((y * width + x) * channels + c, token * channels * 4 + channel, from, to);
      }
    }
  }
  return to;
}
