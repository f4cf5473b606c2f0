// Removes what no output needs, so that a model file may name values it does not always use.

import { type Graph, reads, type Tensor } from '../graph/graph.ts';

export function eliminateDead(graph: Graph): Graph {
  const needed = new Set<Tensor>(graph.ports.flatMap((p) => (p.final ? [p.final] : [])));
  const nodes = [...graph.nodes].reverse().filter((node) => {
    if (!needed.has(node.output)) return false;
    for (const t of reads(node)) needed.add(t);
    return true;
  });
  return { ...graph, nodes: nodes.reverse() };
}
