// What a program lists once and names by number: kernels, weights, constants.

/** A list without repeats that answers where an item is. */
export class Unique<T> {
  readonly items: T[] = [];
  private readonly known = new Map<string, number>();

  constructor(private readonly key: (item: T) => string) {}

  index(item: T): number {
    const key = this.key(item);
    const at = this.known.get(key);
    if (at !== undefined) return at;
    this.known.set(key, this.items.length);
    return this.items.push(item) - 1;
  }
}
