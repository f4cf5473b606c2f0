// Elementwise work moves into the kernel that computes its input: bias, GELU, modulation, gate·y + residual.
// Each fusion saves one write and one read of an activation; arithmetic in registers is free beside that.

import { type Expr, operand, operandsOf, substitute } from '../expr/expr.ts';
import { type Graph, HAS_EPILOGUE, type Node, reads, type Tensor, usesOf } from '../graph/graph.ts';
import { regionReaders } from '../plan/place.ts';

/** @param maxBindings storage buffers a shader may bind on the target */
export function fusePointwise(graph: Graph, maxBindings: number): Graph {
  const finals = new Set(graph.ports.map((p) => p.final));
  const nodes = [...graph.nodes];
  const uses = usesOf(graph);
  const producers = new Map(nodes.map((n) => [n.output, n]));
  for (let at = 0; at < nodes.length; at++) {
    for (;;) {
      const consumer = nodes[at]!;
      if (consumer.op.kind !== 'pointwise') break;
      const producer = latestFusable(consumer, producers, uses, finals, nodes);
      if (!producer) break;
      const fused = fuse(producer, consumer);
      const excess = bindingCount(fused) - maxBindings;
      const rest = () => nodes.map((n) => (n === consumer ? fused : n)).filter((n) => n !== producer);
      if (excess > 1 || (excess === 1 && !willOverwrite(fused, rest(), finals))) break;
      for (const t of new Set([...reads(producer), ...consumer.operands])) {
        const readers = uses.get(t)?.filter((n) => n !== producer && n !== consumer);
        if (readers) uses.set(t, [...readers, fused]);
      }
      producers.delete(producer.output);
      producers.set(fused.output, fused);
      nodes[at] = fused;
      nodes.splice(nodes.indexOf(producer), 1);
      at--;
    }
  }
  return { ...graph, nodes };
}

/** The producer to absorb: the last one computed, so that its other operands exist when it runs at the consumer's place. */
function latestFusable(
  consumer: Node,
  producers: Map<Tensor, Node>,
  uses: Map<Tensor, Node[]>,
  finals: Set<Tensor | undefined>,
  nodes: Node[],
): Node | undefined {
  const { rows, cols } = consumer.output;
  const candidates = consumer.operands.flatMap((t) => {
    const producer = producers.get(t);
    const fits = t.rows === rows && t.cols === cols && uses.get(t)!.length === 1 && !finals.has(t);
    return producer && fits && HAS_EPILOGUE.has(producer.op.kind) ? [producer] : [];
  });
  const order = (n: Node): number => (n.op.kind === 'pointwise' ? 0 : nodes.length) + nodes.indexOf(n);
  return candidates.sort((a, b) => order(b) - order(a))[0];
}

function fuse(producer: Node, consumer: Node): Node {
  const operands = [...new Set([...producer.operands, ...consumer.operands])].filter((t) => t !== producer.output);
  const at = (t: Tensor): Expr => operand(operands.indexOf(t));
  const inner = substitute(producer.expr, { op: 'acc' }, (i) => at(producer.operands[i]!));
  const expr = substitute(consumer.expr, { op: 'acc' }, (i) => {
    const t = consumer.operands[i]!;
    return t === producer.output ? inner : at(t);
  });
  const used = operandsOf(expr);
  return {
    label: consumer.label,
    op: producer.op,
    inputs: producer.inputs,
    expr: substitute(expr, { op: 'acc' }, (i) => operand(used.indexOf(i))),
    operands: used.map((i) => operands[i]!),
    output: consumer.output,
  };
}

/** True when the planner will write the result over an operand, which then needs no binding: nobody reads it afterwards. */
function willOverwrite(node: Node, nodes: readonly Node[], finals: ReadonlySet<Tensor | undefined>): boolean {
  const readers = regionReaders({ nodes: [...nodes] });
  const views = new Set(nodes.filter((n) => n.op.kind === 'slice').map((n) => n.output));
  const position = nodes.indexOf(node);
  return node.operands.some(
    (t) =>
      t.origin.kind === 'node' &&
      t.rows === node.output.rows &&
      t.cols === node.output.cols &&
      !views.has(t) &&
      !finals.has(t) &&
      readers(t).every((reader) => nodes.indexOf(reader) <= position),
  );
}

/** Storage buffers that a node binds when it overwrites nothing. */
function bindingCount(node: Node): number {
  return reads(node).length + 1;
}
