// Which activations are what a norm gave, scaled or modulated: values about one, and never many times √width.
// Products of these may be summed in f16 where a target gains by it (`kernels/packed.ts`); nothing is known of a GELU's or an attention's size.

import { type Graph, isView, type Node, type Tensor } from '../graph/graph.ts';

/**
 * Outputs of row norms with one scale and shift for all rows, images that a group norm's scale and shift were applied to, and parts of these.
 * To be asked after the passes, which put modulation and activation into the norms' own expressions.
 */
export function normalisedTensors(graph: Pick<Graph, 'nodes'>): ReadonlySet<Tensor> {
  const found = new Set<Tensor>();
  /** Scales and shifts of group norms, `[2, channels]` or rows of them. */
  const affine = new Set<Tensor>();
  for (const node of graph.nodes) {
    if (node.op.kind === 'groupNorm') affine.add(node.output);
    else if (isView(node.op)) {
      for (const set of [found, affine]) if (node.inputs.every((t) => set.has(t))) set.add(node.output);
    } else if (isNorm(node, affine)) found.add(node.output);
  }
  return found;
}

function isNorm(node: Node, affine: ReadonlySet<Tensor>): boolean {
  const rows = node.operands.filter((t) => t.rows === node.output.rows && t.rows > 1);
  if (node.op.kind === 'rowNorm') return rows.length === 0;
  // The image itself is the one operand that has a value for each place.
  return node.op.kind === 'pointwise' && rows.length === 1 && node.operands.filter((t) => affine.has(t)).length === 2;
}
