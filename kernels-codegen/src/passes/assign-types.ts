// Chooses f16 for what only multiplications read; everything else stays f32.
// FLUX's and T5's residual streams exceed 65504, so residuals, norms and statistics may never be f16.

import { type Graph, isView, type Node, type Tensor, usesOf } from '../graph/graph.ts';

export function assignTypes(graph: Graph, f16: boolean): Graph {
  if (!f16) return graph;
  const groups = shareStorage(graph);
  const uses = usesOf(graph);
  const ports = new Set(graph.ports.flatMap((p) => [p.initial, p.final]));
  for (const group of groups) {
    const narrow = group.every(
      (t) =>
        t.type === 'f32' &&
        t.origin.kind === 'node' &&
        !ports.has(t) &&
        (uses.get(t) ?? []).every(
          (node) => isView(node.op) || multiplies(node, t) || (copies(node) && ports.has(node.output)),
        ),
    );
    if (narrow) for (const t of group) t.type = 'f16';
  }
  // Adapters' factors are ports; they are weights like any other.
  for (const { op } of graph.nodes) {
    if (op.kind !== 'matmul') continue;
    for (const t of [op.weight, op.beside?.weight]) if (t?.origin.kind === 'port') t.type = 'f16';
  }
  return graph;
}

/** True when `node` reads `t` only as an operand of a multiplication (or normalises or guides it on the way to one, in f32). */
function multiplies(node: Node, t: Tensor): boolean {
  if (node.operands.includes(t)) return false;
  switch (node.op.kind) {
    case 'matmul':
    case 'conv2d':
      return true;
    case 'attention':
      return node.inputs.indexOf(t) < 3;
    case 'headNorm':
      return node.inputs[0] === t;
    case 'guideRows':
      return node.inputs.indexOf(t) < 2;
    default:
      return false;
  }
}

/** A copy into a port widens exactly: it does not ask for f32. */
const copies = (node: Node): boolean => node.op.kind === 'pointwise' && node.expr.op === 'operand';

/** Tensors that live in one buffer because one is a view or part of another, or its in-place update: they share a type. */
function shareStorage(graph: Graph): Tensor[][] {
  const group = new Map<Tensor, Tensor[]>();
  const of = (t: Tensor): Tensor[] => {
    const known = group.get(t);
    if (known) return known;
    const made = [t];
    group.set(t, made);
    return made;
  };
  const join = (a: Tensor, b: Tensor): void => {
    const [x, y] = [of(a), of(b)];
    if (x === y) return;
    for (const t of y) {
      x.push(t);
      group.set(t, x);
    }
  };
  for (const node of graph.nodes) {
    of(node.output);
    if (isView(node.op)) for (const t of node.inputs) join(node.output, t);
    if (node.op.kind === 'headNorm') join(node.output, node.inputs[0]!);
  }
  return [...new Set(group.values())];
}
