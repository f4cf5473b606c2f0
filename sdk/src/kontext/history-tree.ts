// What sessions and the editor remember: a tree of results that grows where somebody goes back and tries something else.
// Node 0 is the beginning and holds nothing; the others are numbered in the order they were made, so a parent comes before its children.
import { KontextError } from '../../../runtime/src/errors.ts';

/** A result and what it was made of. */
export interface HistoryNode<T> {
  /** From 1. */
  id: number;
  /** The node it began at; 0 is the beginning. */
  parent: number;
  value: T;
}

export class HistoryTree<T> {
  readonly #nodes: HistoryNode<T>[];
  #position: number;
  /** Where {@link redo} goes from each node: to the child that was seen last. */
  readonly #next = new Map<number, number>();

  constructor(nodes: readonly HistoryNode<T>[] = [], position = 0) {
    this.#nodes = [...nodes];
    for (const { id, parent } of nodes) this.#next.set(parent, id);
    this.#position = 0;
    this.goTo(position);
  }

  /** The node that is current; 0 at the beginning. */
  get position(): number {
    return this.#position;
  }

  /** In the order they were made. */
  get nodes(): readonly HistoryNode<T>[] {
    return this.#nodes;
  }

  at(id: number): HistoryNode<T> | undefined {
    return typeof id === 'number' ? this.#nodes[id - 1] : undefined;
  }

  /** From the beginning to a node, both ends with it, without node 0. */
  path(id = this.#position): HistoryNode<T>[] {
    const path: HistoryNode<T>[] = [];
    for (let node = this.at(id); node; node = this.at(node.parent)) path.unshift(node);
    return path;
  }

  /** The path to the current node, and on as {@link redo} would go. */
  line(): HistoryNode<T>[] {
    const line = this.path();
    for (let next = this.#next.get(this.#position); next !== undefined; next = this.#next.get(next)) {
      line.push(this.at(next)!);
    }
    return line;
  }

  /** What was made of a node, oldest first. */
  children(id = this.#position): HistoryNode<T>[] {
    return this.#nodes.filter(({ parent }) => parent === id);
  }

  /** A result of `parent`; it becomes current. */
  add(value: T, parent = this.#position): HistoryNode<T> {
    const node = { id: this.#nodes.length + 1, parent, value };
    this.#nodes.push(node);
    this.goTo(node.id);
    return node;
  }

  /** @throws KontextError `invalid-request` when there is no such node */
  goTo(id: number): void {
    if (id !== 0 && !this.at(id)) {
      throw new KontextError('invalid-request', `There is no turn ${String(id)}; there are ${this.#nodes.length}.`);
    }
    this.#position = id;
    for (const node of this.path()) this.#next.set(node.parent, node.id);
  }

  get canUndo(): boolean {
    return this.#position > 0;
  }

  get canRedo(): boolean {
    return this.#next.has(this.#position);
  }

  undo(): void {
    this.#position = this.at(this.#position)?.parent ?? 0;
  }

  redo(): void {
    this.#position = this.#next.get(this.#position) ?? this.#position;
  }
}
