// Writes an ONNX model: as much of its protocol buffers as a graph of f32 tensors needs (onnx.proto of the ONNX project).

/** A node's attributes: an integer, a number with a point, a word, or a list of integers. */
export type Attribute = { int: number } | { float: number } | { text: string } | { ints: number[] };

export interface Node {
  op: string;
  inputs: string[];
  output: string;
  attributes: Record<string, Attribute>;
  /** Empty for the standard's own operators. */
  domain: string;
}

export interface Initializer {
  name: string;
  shape: number[];
  data: Float32Array | BigInt64Array;
}

export interface OnnxGraph {
  nodes: Node[];
  initializers: Initializer[];
  inputs: { name: string; shape: number[] }[];
  output: { name: string; shape: number[] };
}

const FLOAT = 1;
const INT64 = 7;

/** Bytes of a model file. */
export function onnxFile(graph: OnnxGraph): Uint8Array {
  const body = join([
    ...graph.nodes.map((node) => message(1, nodeOf(node))),
    text(2, 'work'),
    ...graph.initializers.map((tensor) => message(5, initializerOf(tensor))),
    ...graph.inputs.map(({ name, shape }) => message(11, valueInfo(name, shape))),
    message(12, valueInfo(graph.output.name, graph.output.shape)),
  ]);
  const operators = (domain: string, version: number) => message(8, join([text(1, domain), integer(2, version)]));
  return join([integer(1, 9), message(7, body), operators('', 20), operators('com.microsoft', 1)]);
}

const nodeOf = ({ op, inputs, output, attributes, domain }: Node): Uint8Array =>
  join([
    ...inputs.map((input) => text(1, input)),
    text(2, output),
    text(3, output),
    text(4, op),
    ...Object.entries(attributes).map(([name, value]) => message(5, attributeOf(name, value))),
    text(7, domain),
  ]);

function attributeOf(name: string, value: Attribute): Uint8Array {
  const kinds = { float: 1, int: 2, text: 3, ints: 7 };
  const kind = Object.keys(value)[0] as keyof typeof kinds;
  const stored =
    'int' in value
      ? [integer(3, value.int)]
      : 'float' in value
        ? [key(2, 5), new Uint8Array(Float32Array.of(value.float).buffer)]
        : 'text' in value
          ? [text(4, value.text)]
          : value.ints.map((int) => integer(8, int));
  return join([text(1, name), ...stored, integer(20, kinds[kind])]);
}

const initializerOf = ({ name, shape, data }: Initializer): Uint8Array =>
  join([
    ...shape.map((size) => integer(1, size)),
    integer(2, data instanceof Float32Array ? FLOAT : INT64),
    text(8, name),
    message(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  ]);

function valueInfo(name: string, shape: number[]): Uint8Array {
  const sizes = join(shape.map((size) => message(1, integer(1, size))));
  return join([text(1, name), message(2, message(1, join([integer(1, FLOAT), message(2, sizes)])))]);
}

// Protocol buffers: a key is a field's number and its kind, 0 for integers, 2 for anything with a length, 5 for four bytes.

const key = (field: number, kind: number): Uint8Array => varint((field << 3) | kind);
const integer = (field: number, value: number): Uint8Array => join([key(field, 0), varint(value)]);
const text = (field: number, value: string): Uint8Array => message(field, new TextEncoder().encode(value));
const message = (field: number, bytes: Uint8Array): Uint8Array => join([key(field, 2), varint(bytes.length), bytes]);

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  // Negative integers are written as their 64-bit complement.
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const more = rest > 127n;
    bytes.push(Number(rest & 127n) | (more ? 128 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}

function join(parts: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
