// Finds projections whose heads are normalised in place right behind them: one kernel may do both.
// Whether it does depends on the kernel that the target gets; memory is planned as for two.

import { type Graph, type Node, reads, usesOf } from '../graph/graph.ts';
import type { Placement } from './place.ts';

/**
 * Of each matmul that may be fused so, the head norm. Nobody else may read the projection as it was, and what the norm reads must be there, unchanged,
 * when the projection runs, outside the memory that it writes: weights and ports.
 */
export function normedProjections(graph: Graph, { steps }: Placement): Map<Node, Node> {
  const uses = usesOf(graph);
  const producers = new Map(steps.map((node) => [node.output, node]));
  const written = new Set(graph.ports.flatMap((port) => (port.final ? [port.name] : [])));
  const views = new Map(graph.nodes.flatMap((n) => (n.op.kind === 'slice' ? [[n.output, n.inputs[0]!] as const] : [])));
  const constant = (node: Node): boolean =>
    node.inputs.slice(1).every((t) => {
      let whole = t;
      while (views.has(whole)) whole = views.get(whole)!;
      const { origin } = whole;
      return origin.kind === 'weight' || (origin.kind === 'port' && !written.has(origin.port));
    });
  const found = new Map<Node, Node>();
  for (const node of steps) {
    if (node.op.kind !== 'headNorm' || !constant(node)) continue;
    const projection = producers.get(node.inputs[0]!);
    if (projection?.op.kind !== 'matmul' || uses.get(projection.output)?.length !== 1) continue;
    if (steps.some((other) => other !== node && reads(other).includes(projection.output))) continue;
    if (graph.ports.some(({ final }) => final === projection.output)) continue;
    found.set(projection, node);
  }
  return found;
}
