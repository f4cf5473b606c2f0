// Makes intermediates visible: the first wrong one names the layer that is wrong.
// A tap copies a value to an output port; it changes no arithmetic, though a tapped value can no longer be fused away.

import { KontextError } from '../../../runtime/src/errors.ts';
import { operand } from '../expr/expr.ts';
import type { Graph, Node, Tensor } from './graph.ts';

/** @param labels node labels; the last node of that label is tapped, under a port of the same name */
export function tap(graph: Graph, labels: readonly string[]): Graph {
  if (labels.length === 0) return graph;
  const last = new Map(graph.nodes.map((n) => [n.label, n]));
  const ports = [...graph.ports];
  const copyAfter = new Map<Node, Node>();
  let nextId = 1 + graph.nodes.reduce((most, n) => Math.max(most, n.output.id), 0);
  for (const label of labels) {
    const node = last.get(label);
    if (!node) throw new KontextError('invalid-request', `No node is labelled "${label}".`, { label });
    const { rows, cols } = node.output;
    const output: Tensor = { id: nextId++, rows, cols, type: 'f32', label: `tap ${label}`, origin: { kind: 'node' } };
    const copy: Node = {
      label: output.label,
      op: { kind: 'pointwise' },
      inputs: [],
      expr: operand(0),
      operands: [node.output],
      output,
    };
    copyAfter.set(node, copy);
    ports.push({ name: label, direction: 'out', final: output });
  }
  const nodes = graph.nodes.flatMap((n) => (copyAfter.has(n) ? [n, copyAfter.get(n)!] : [n]));
  return { nodes, ports };
}
