// A byte trie in level order: the children of a node are neighbours, sorted by label.
// In the file it is one label and one child count a node; expanded, a step is a binary search among the siblings.
import { expect, raw, sound, varint } from './reader';

/**
 * Expanded form: u32 count, u32 reserved, then for each node u32 first child (one more at the end), i32 value (-1: none), u8 label.
 * The root's children are also in a table of 256 u32 (0: none), because every look-up starts there.
 */
const ROOT: usize = 8;
const NODES: usize = ROOT + 256 * 4;

/** Bytes of the expanded form. */
export function trieBytes(nodes: u32): u32 {
  return (<u32>NODES + 4 * (nodes + 1) + 5 * nodes + 15) & ~15;
}

/** Reads a trie of `nodes` into `trie`: labels, child counts, then for each node 0 or 1 + a value below `limit`. */
export function expandTrie(trie: usize, nodes: u32, limit: u32): void {
  const labels = raw(nodes);
  const counts = raw(nodes);
  if (!sound()) return;
  const firsts = trie + NODES;
  const values = firsts + 4 * (<usize>nodes + 1);
  store<u32>(trie, nodes);
  let first: u32 = 1;
  for (let node: u32 = 0; node < nodes; node++) {
    store<u32>(firsts + 4 * node, first);
    first += load<u8>(counts + node);
    // Children come after their parent, or a look-up could run in circles.
    expect(first > node + 1 || first == nodes);
    const value = varint();
    expect(value <= limit);
    store<u32>(values + 4 * node, value - 1);
    if (!sound()) return;
  }
  expect(first == nodes);
  store<u32>(firsts + 4 * nodes, first);
  memory.copy(values + 4 * nodes, labels, nodes);
  memory.fill(trie + ROOT, 0, 1024);
  if (!sound()) return;
  const rootEnd = load<u32>(firsts, 4);
  for (let node: u32 = 1; node < rootEnd; node++) store<u32>(trie + ROOT + 4 * <usize>load<u8>(labels + node), node);
}

/** Child of `node` by `label`, or 0 when there is none (the root is nobody's child). */
// @ts-ignore: decorator
@inline
export function child(trie: usize, node: u32, label: u32): u32 {
  if (node == 0) return load<u32>(trie + ROOT + 4 * label);
  const firsts = trie + NODES;
  const names = firsts + 8 * <usize>load<u32>(trie) + 4;
  let low = load<u32>(firsts + 4 * node);
  const end = load<u32>(firsts + 4 * node, 4);
  let high = end;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (<u32>load<u8>(names + middle) < label) low = middle + 1;
    else high = middle;
  }
  return low < end && <u32>load<u8>(names + low) == label ? low : 0;
}

/** Value of `node`, or -1. */
// @ts-ignore: decorator
@inline
export function valueOf(trie: usize, node: u32): i32 {
  return load<i32>(trie + NODES + 4 * (<usize>load<u32>(trie) + 1) + 4 * <usize>node);
}

/** End of the last longest match, set by `longest`. */
export let matchEnd: usize = 0;

/** Value of the longest entry that starts at `at`, or -1; `matchEnd` is the address after it. */
export function longest(trie: usize, at: usize, end: usize): i32 {
  let node: u32 = 0;
  let best: i32 = -1;
  while (at < end) {
    node = child(trie, node, load<u8>(at));
    if (!node) break;
    at++;
    const value = valueOf(trie, node);
    if (value >= 0) {
      best = value;
      matchEnd = at;
    }
  }
  return best;
}
