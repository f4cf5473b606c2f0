// ONNX files of a node or two, written by hand: what ONNX Runtime is given, with no exporter in between.
// Protocol buffers need three kinds of field for it: varints, floats and length-prefixed bytes.
// @see https://github.com/onnx/onnx/blob/main/onnx/onnx.proto

type Bytes = Uint8Array<ArrayBuffer>;

/** A tensor type of float32. */
const FLOAT = 1;
const OPSET = 17;
const IR_VERSION = 8;

export interface OnnxNode {
  op: string;
  domain?: string;
  inputs: string[];
  output: string;
  /** Whole numbers, lists of them, or a float as `{ float }`. */
  attributes?: Record<string, number | number[] | { float: number }>;
}

export interface OnnxGraph {
  nodes: OnnxNode[];
  /** Shapes of the inputs and of the output, by name. */
  inputs: Record<string, number[]>;
  output: [name: string, shape: number[]];
  /** Constant inputs. */
  weights: Record<string, { shape: number[]; values: Float32Array }>;
}

/** A serialized ModelProto. */
export function onnxModel({ nodes, inputs, output, weights }: OnnxGraph): Bytes {
  const graph = join([
    ...nodes.map((node) => field(1, nodeProto(node))),
    field(2, text('graph')),
    ...Object.entries(weights).map(([name, { shape, values }]) =>
      field(5, join([...shape.map((d) => whole(1, d)), whole(2, FLOAT), field(8, text(name)), field(9, raw(values))])),
    ),
    ...Object.entries(inputs).map(([name, shape]) => field(11, valueInfo(name, shape))),
    field(12, valueInfo(...output)),
  ]);
  const opsets = [
    ['', OPSET],
    ['com.microsoft', 1],
  ] as const;
  return join([
    whole(1, IR_VERSION),
    field(7, graph),
    ...opsets.map(([domain, version]) => field(8, join([field(1, text(domain)), whole(2, version)]))),
  ]);
}

function nodeProto({ op, domain, inputs, output, attributes = {} }: OnnxNode): Bytes {
  return join([
    ...inputs.map((name) => field(1, text(name))),
    field(2, text(output)),
    field(4, text(op)),
    ...Object.entries(attributes).map(([name, value]) => field(5, attribute(name, value))),
    ...(domain ? [field(7, text(domain))] : []),
  ]);
}

function attribute(name: string, value: number | number[] | { float: number }): Bytes {
  const [FLOAT_KIND, INT_KIND, INTS_KIND] = [1, 2, 7];
  if (typeof value === 'number') return join([field(1, text(name)), whole(3, value), whole(20, INT_KIND)]);
  if (Array.isArray(value)) {
    return join([field(1, text(name)), ...value.map((v) => whole(8, v)), whole(20, INTS_KIND)]);
  }
  // Wire type 5: four bytes.
  return join([
    field(1, text(name)),
    join([varint((2 << 3) | 5), raw(Float32Array.of(value.float))]),
    whole(20, FLOAT_KIND),
  ]);
}

function valueInfo(name: string, shape: number[]): Bytes {
  const dims = join(shape.map((d) => field(1, whole(1, d))));
  const tensor = join([whole(1, FLOAT), field(2, dims)]);
  return join([field(1, text(name)), field(2, field(1, tensor))]);
}

const whole = (number: number, value: number): Bytes => join([varint(number << 3), varint(value)]);
const field = (number: number, bytes: Bytes): Bytes => join([varint((number << 3) | 2), varint(bytes.length), bytes]);
const text = (value: string): Bytes => new TextEncoder().encode(value) as Bytes;
const raw = (values: Float32Array): Bytes => new Uint8Array(Float32Array.from(values).buffer);

function varint(value: number): Bytes {
  const bytes: number[] = [];
  let rest = value;
  do {
    bytes.push((rest & 127) | (rest > 127 ? 128 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Uint8Array.from(bytes);
}

function join(parts: readonly Bytes[]): Bytes {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
