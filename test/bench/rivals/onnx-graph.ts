// A work as an ONNX graph, with the operators that exporters and ONNX Runtime's own optimiser would use.

import { type Arithmetic, channelsFirst, transposed, weightOf } from './arithmetic.ts';
import { type Attribute, type Initializer, type Node, type OnnxGraph, onnxFile } from './onnx-file.ts';
import type { Tensor, Work } from './works.ts';

/** A value of the graph by its name. */
interface Value {
  name: string;
  rows: number;
  columns: number;
}

export const OUTPUT = 'result';

/** Shape in ONNX: images are `[1, channels, height, width]`. */
export function onnxShape({ image }: Work, { rows, columns }: { rows: number; columns: number }): number[] {
  return image ? [1, columns, image.height, image.width] : [rows, columns];
}

/** A model file of the work; inputs by their names, the result is {@link OUTPUT}. */
export function onnxModel(work: Work): Uint8Array {
  const graph = new Graph(work);
  const inputs = Object.entries(work.inputs).map(([name, { rows, columns }]): [string, Value] => [
    name,
    { name, rows, columns },
  ]);
  const result = work.compute(graph.arithmetic(), Object.fromEntries(inputs));
  return onnxFile({
    ...graph.parts,
    inputs: inputs.map(([name, value]) => ({ name, shape: onnxShape(work, value) })),
    nodes: [...graph.parts.nodes, graph.renamed(result.name, OUTPUT)],
    output: { name: OUTPUT, shape: onnxShape(work, result) },
  });
}

class Graph {
  readonly parts: Pick<OnnxGraph, 'nodes' | 'initializers'> = { nodes: [], initializers: [] };
  private readonly known = new Map<string, string>();
  private count = 0;

  constructor(private readonly work: Work) {}

  renamed(from: string, to: string): Node {
    return { op: 'Identity', inputs: [from], output: to, attributes: {}, domain: '' };
  }

  arithmetic(): Arithmetic<Value> {
    const { work } = this;
    const slice = (x: string, axis: number, first: number, end: number, step = 1): string =>
      this.node('Slice', [x, ...[first, end, axis, step].map((n) => this.integers(n))]);
    /** Each pair's first and second values, `[rows, heads, size / 2, 1]`. */
    const pairs = (x: string, rows: number, heads: number, size: number): [string, string] => {
      const key = `pairs ${x} ${heads}`;
      const inPairs = this.once(key, () => this.node('Reshape', [x, this.integers(rows, heads, size / 2, 2)]));
      return [0, 1].map((i) => this.once(`${key} ${i}`, () => slice(inPairs, 3, i, i + 1))) as [string, string];
    };
    const binary = (op: string, a: string, b: string): string => this.node(op, [a, b]);
    return {
      linear: (x, name) => {
        const { rows, columns, data } = weightOf(work, `${name}.weight`);
        const weight = this.floats(`${name}.weight`, [columns, rows], () => transposed(data, rows, columns));
        const product = binary('MatMul', x.name, weight);
        const bias = work.weights[`${name}.bias`];
        const y = bias
          ? binary(
              'Add',
              product,
              this.floats(`${name}.bias`, [rows], () => bias.data),
            )
          : product;
        return { name: y, rows: x.rows, columns: rows };
      },
      normalise: (x) => {
        const ones = this.floats('ones', [x.columns], () => new Float32Array(x.columns).fill(1));
        const attributes = { axis: { int: -1 }, epsilon: { float: 1e-6 } };
        return { ...x, name: this.node('LayerNormalization', [x.name, ones], attributes) };
      },
      modulate: (x, scale, shift) => {
        const factor = binary('Add', scale.name, this.scalar(1));
        return { ...x, name: binary('Add', binary('Mul', x.name, factor), shift.name) };
      },
      gated: (x, gate, y) => ({ ...x, name: binary('Add', x.name, binary('Mul', gate.name, y.name)) }),
      gelu: (x) => ({ ...x, name: this.node('Gelu', [x.name], { approximate: { text: 'tanh' } }) }),
      rows: (x, first, count) => ({ ...x, rows: count, name: slice(x.name, 0, first, first + count) }),
      columns: (x, first, count) => ({ ...x, columns: count, name: slice(x.name, 1, first, first + count) }),
      below: (a, b) => ({
        ...a,
        rows: a.rows + b.rows,
        name: this.node('Concat', [a.name, b.name], { axis: { int: 0 } }),
      }),
      beside: (a, b) => ({
        ...a,
        columns: a.columns + b.columns,
        name: this.node('Concat', [a.name, b.name], { axis: { int: 1 } }),
      }),
      headNorm: (x, scaleName, rope, heads) => {
        const size = x.columns / heads;
        const split = this.node('Reshape', [x.name, this.integers(x.rows, heads, size)]);
        const squares = binary('Pow', split, this.scalar(2));
        const mean = this.node('ReduceMean', [squares, this.integers(-1)], { keepdims: { int: 1 } });
        const rms = this.node('Sqrt', [binary('Add', mean, this.scalar(1e-6))]);
        const scale = this.floats(scaleName, [size], () => weightOf(work, scaleName).data);
        const unit = binary('Mul', binary('Div', split, rms), scale);
        const [a, b] = pairs(unit, x.rows, heads, size);
        const [cos, sin] = pairs(rope.name, x.rows, 1, size);
        const turned = [
          binary('Sub', binary('Mul', a, cos), binary('Mul', b, sin)),
          binary('Add', binary('Mul', a, sin), binary('Mul', b, cos)),
        ];
        const joined = this.node('Concat', turned, { axis: { int: -1 } });
        return { ...x, name: this.node('Reshape', [joined, this.integers(x.rows, x.columns)]) };
      },
      attend: (q, k, v, heads) => {
        const batched = [q, k, v].map(({ name, rows, columns }) =>
          this.node('Reshape', [name, this.integers(1, rows, columns)]),
        );
        const y = this.node('MultiHeadAttention', batched, { num_heads: { int: heads } }, 'com.microsoft');
        return { ...q, name: this.node('Reshape', [y, this.integers(q.rows, q.columns)]) };
      },
      convolve: (x, name) => {
        const filter = weightOf(work, `${name}.weight`);
        const { rows, columns } = filter;
        const weight = this.floats(`${name}.weight`, [rows, columns / 9, 3, 3], () => channelsFirst(filter));
        const attributes = { kernel_shape: { ints: [3, 3] }, pads: { ints: [1, 1, 1, 1] } };
        return { rows: x.rows, columns: rows, name: this.node('Conv', [x.name, weight], attributes) };
      },
    };
  }

  private node(op: string, inputs: string[], attributes: Record<string, Attribute> = {}, domain = ''): string {
    const output = `${op.toLowerCase()}_${this.count++}`;
    this.parts.nodes.push({ op, inputs, output, attributes, domain });
    return output;
  }

  private floats(name: string, shape: number[], make: () => Tensor['data']): string {
    return this.constant(`${name} ${shape}`, shape, make);
  }

  private scalar(value: number): string {
    return this.constant(`scalar ${value}`, [], () => Float32Array.of(value));
  }

  private integers(...values: number[]): string {
    return this.constant(`integers ${values}`, [values.length], () => BigInt64Array.from(values, BigInt));
  }

  private constant(name: string, shape: number[], make: () => Initializer['data']): string {
    return this.once(name, () => {
      this.parts.initializers.push({ name, shape, data: make() });
      return name;
    });
  }

  private once(key: string, make: () => string): string {
    const name = this.known.get(key) ?? make();
    this.known.set(key, name);
    return name;
  }
}
