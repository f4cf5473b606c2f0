// Decides which buffer rectangle each tensor lives in: views share, concatenations are written in place, residuals update in place.
// What is left over are storages with lifetimes, which `slabs.ts` packs.

import { acc, operand } from '../expr/expr.ts';
import {
  type Graph,
  HAS_EPILOGUE,
  isView,
  type Node,
  reads,
  type Tensor,
  updatesInput,
  usesOf,
} from '../graph/graph.ts';

/** A matrix in memory. `port` storages are buffers of their own; the others are packed into slabs. */
export interface Storage {
  rows: number;
  cols: number;
  type: Tensor['type'];
  port?: string;
  /** Steps from the first write to the last read; meaningless for ports. */
  first: number;
  last: number;
}

/** The rectangle of a storage that a tensor occupies: from `[row, col]`. */
export interface Home {
  storage: Storage;
  row: number;
  col: number;
}

export interface Placement {
  /** The nodes that become dispatches, in order; views are gone, necessary copies are there. */
  steps: Node[];
  homes: Map<Tensor, Home>;
  /** Nodes whose output overwrites an operand: the operand's index, or `input` for the first input. */
  inPlace: Map<Node, number | 'input'>;
  /** Private memory of a step. */
  scratch: Map<Node, Storage>;
}

type ScratchShape = (node: Node) => { rows: number; cols: number } | undefined;

/**
 * Wishes may collide: WebGPU lets no dispatch read one part of a buffer and write another, and a port's old value may
 * still be read when its new one is ready. Such a value gets memory of its own and is copied where it was wished.
 *
 * @param scratchShape shape of the f32 matrix a node needs beside its output, if any
 */
export function place(graph: Graph, scratchShape: ScratchShape): Placement {
  const apart = new Set<Tensor>();
  for (;;) {
    const placement = placeWith(graph, scratchShape, apart);
    const clash = clashOf(graph, placement);
    if (!clash) return placement;
    if (apart.has(clash.value)) throw new Error(`plan: ${clash.node.label} reads and writes one buffer`);
    apart.add(clash.value);
  }
}

function placeWith(original: Graph, scratchShape: ScratchShape, apart: ReadonlySet<Tensor>): Placement {
  const graph = withCopies(original, apart);
  const { nodes } = graph;
  const order = new Map(nodes.map((n, i) => [n, i]));
  const readers = regionReaders(graph);
  const homes = new Map<Tensor, Home>();
  const inPlace = new Map<Node, number | 'input'>();
  const slices = new Set(nodes.filter((n) => n.op.kind === 'slice').map((n) => n.output));
  const finals = new Set<Tensor>();
  for (const port of graph.ports) {
    const shape = (port.final ?? port.initial)!;
    const storage: Storage = {
      rows: shape.rows,
      cols: shape.cols,
      type: shape.type,
      port: port.name,
      first: 0,
      last: 0,
    };
    for (const t of [port.initial, port.final]) if (t) homes.set(t, { storage, row: 0, col: 0 });
    if (port.final) finals.add(port.final);
  }

  // From the last node to the first: a consumer's wish (be part of a whole, be overwritten) decides where a value is written.
  for (const node of [...nodes].reverse()) {
    if (node.op.kind === 'slice') continue;
    const { rows, cols, type } = node.output;
    const home = homes.get(node.output) ?? { storage: { rows, cols, type, first: 0, last: 0 }, row: 0, col: 0 };
    homes.set(node.output, home);
    if (isView(node.op)) {
      let [row, col] = [home.row, home.col];
      for (const part of node.inputs) {
        homes.set(part, { storage: home.storage, row, col });
        if (node.op.kind === 'concatRows') row += part.rows;
        else col += part.cols;
      }
      continue;
    }
    if (apart.has(node.output) && !updatesInput(node.op)) continue;
    const overwritten = overwritable(
      node,
      homes,
      finals,
      (t) =>
        !apart.has(t) &&
        !slices.has(t) &&
        readers(t).every((reader) => reader === node || order.get(reader)! < order.get(node)!),
    );
    if (overwritten === undefined) continue;
    inPlace.set(node, overwritten);
    const t = overwritten === 'input' ? node.inputs[0]! : node.operands[overwritten]!;
    homes.set(t, home);
  }
  for (const node of nodes) {
    if (node.op.kind !== 'slice') continue;
    const base = homes.get(node.inputs[0]!);
    if (base)
      homes.set(node.output, { storage: base.storage, row: base.row + node.op.row, col: base.col + node.op.col });
  }

  const steps = nodes.filter((n) => !isView(n.op));
  const scratch = new Map<Node, Storage>();
  const touched = new Set<Storage>();
  steps.forEach((node, i) => {
    for (const t of [node.output, ...reads(node)]) {
      const storage = homes.get(t)?.storage;
      if (!storage) continue;
      if (!touched.has(storage)) storage.first = i;
      touched.add(storage);
      storage.last = i;
    }
    const shape = scratchShape(node);
    if (shape) scratch.set(node, { ...shape, type: 'f32', first: i, last: i });
  });
  return { steps, homes, inPlace, scratch };
}

/** Which of a node's own values its output may replace: same shape, type and role, and nobody reads the old value later. */
function overwritable(
  node: Node,
  homes: Map<Tensor, Home>,
  finals: Set<Tensor>,
  lastUse: (t: Tensor) => boolean,
): number | 'input' | undefined {
  const mayReplace = (t: Tensor): boolean => {
    const sameShape = t.rows === node.output.rows && t.cols === node.output.cols && t.type === node.output.type;
    if (!sameShape || finals.has(t)) return false;
    const mine = homes.get(t);
    // An updated port: the new value's home is the port that holds the old value.
    if (mine?.storage.port && t.origin.kind === 'port') return mine.storage === homes.get(node.output)!.storage;
    return t.origin.kind === 'node' && !mine && lastUse(t);
  };
  if (updatesInput(node.op)) {
    if (!mayReplace(node.inputs[0]!)) throw new Error(`plan: ${node.label} needs a value of its own to update`);
    return 'input';
  }
  if (!HAS_EPILOGUE.has(node.op.kind)) return undefined;
  const found = node.operands.findIndex((t) => !node.inputs.includes(t) && mayReplace(t));
  return found < 0 ? undefined : found;
}

/**
 * Nodes that read any part of a tensor's memory: through slices of it, through wholes it is part of, and, when it is a
 * concatenation, through its parts.
 */
export function regionReaders(graph: Pick<Graph, 'nodes'>): (t: Tensor) => Node[] {
  const uses = usesOf(graph);
  const producers = new Map(graph.nodes.map((n) => [n.output, n]));
  const below = (t: Tensor): Node[] =>
    (uses.get(t) ?? []).flatMap((node) => (isView(node.op) ? below(node.output) : [node]));
  const all = (t: Tensor): Node[] => {
    const producer = producers.get(t);
    const concat = producer?.op.kind === 'concatRows' || producer?.op.kind === 'concatCols';
    return [...below(t), ...(concat ? producer.inputs.flatMap(all) : [])];
  };
  return all;
}

/** A node that reads what it writes, or overwrites what is read later, and the value to set apart. */
function clashOf(graph: Graph, { steps, homes, inPlace }: Placement): { node: Node; value: Tensor } | undefined {
  const storageOf = (t: Tensor): Storage | undefined => homes.get(t)?.storage;
  const base = new Map(graph.nodes.flatMap((n) => (n.op.kind === 'slice' ? [[n.output, n.inputs[0]!] as const] : [])));
  const rootOf = (t: Tensor): Tensor => {
    const whole = base.get(t);
    return whole ? rootOf(whole) : t;
  };
  const finalOf = new Map(graph.ports.map((p) => [p.name, p.final]));
  const own = new Set(graph.nodes);
  for (const [i, node] of steps.entries()) {
    const written = storageOf(node.output)!;
    const final = written.port === undefined ? undefined : finalOf.get(written.port);
    const replaced = inPlace.get(node);
    const updated =
      replaced === 'input' ? node.inputs[0] : replaced === undefined ? undefined : node.operands[replaced];
    const read = reads(node).find((t) => t !== updated && storageOf(t) === written);
    // A copy that `withCopies` made reads the value that should have stayed outside.
    if (read) return { node, value: final ?? (own.has(node) ? node.output : rootOf(read)) };
    const later = (n: Node): boolean =>
      reads(n).some((t) => storageOf(t) === written && rootOf(t).origin.kind === 'port');
    if (final && steps.slice(i + 1).some(later)) return { node, value: final };
  }
  return undefined;
}

/**
 * Inserts copies where a value cannot be written straight where it is wanted: it is a view or port, is part of two wholes,
 * or has to stay apart.
 */
function withCopies(graph: Graph, apart: ReadonlySet<Tensor>): Graph {
  const producers = new Map(graph.nodes.map((n) => [n.output, n]));
  const finals = new Set(graph.ports.flatMap((p) => (p.final ? [p.final] : [])));
  const claimed = new Set<Tensor>();
  let nextId = 1_000_000;
  const copyOf = (part: Tensor, type: Tensor['type']): Node => {
    const label = `copy ${part.label}`;
    const output: Tensor = { ...part, id: nextId++, type, label, origin: { kind: 'node' } };
    return { label, op: { kind: 'pointwise' }, inputs: [], expr: operand(0), operands: [part], output };
  };
  const nodes = graph.nodes.flatMap((node) => {
    if (node.op.kind !== 'concatRows' && node.op.kind !== 'concatCols') return [node];
    const copies: Node[] = [];
    const inputs = node.inputs.map((part) => {
      const producer = producers.get(part);
      const direct = producer && producer.op.kind !== 'slice' && !claimed.has(part) && !finals.has(part);
      if (direct && part.type === node.output.type && !apart.has(part)) {
        claimed.add(part);
        return part;
      }
      const copy = copyOf(part, node.output.type);
      copies.push(copy);
      return copy.output;
    });
    return [...copies, { ...node, inputs, expr: acc }];
  });
  const ports = graph.ports.map((port) => {
    if (!port.final || !apart.has(port.final)) return port;
    const copy = copyOf(port.final, port.final.type);
    nodes.push(copy);
    return { ...port, final: copy.output };
  });
  return { nodes, ports };
}
