// The numbers that differ between shapes of one kernel: literals in the text, or words of a uniform buffer.
// GPUs make use of constants. On CPU adapters a text takes longer to compile than to run, so there shapes share texts.

import type { TargetProfile } from '../targets/types.ts';

export interface Sizes {
  /** WGSL expression of type u32; `name` says what the number is. */
  of(name: string, value: number): string;
  /** The same for arithmetic in i32. */
  signed(name: string, value: number): string;
  /** What follows the element's type in the type of a bound array. @param byRows it holds a value for each row */
  length(elements: number, byRows?: boolean): string;
}

export const LITERALS: Sizes = {
  of: (_, value) => `${value}u`,
  signed: (_, value) => `${value}`,
  length: (elements) => `, ${elements}`,
};

/** Literals in a text that depends on no number of rows: arrays that hold a value for each have no length, and one text serves any. */
export const ANY_ROWS: Sizes = { ...LITERALS, length: (elements, byRows) => (byRows ? '' : LITERALS.length(elements)) };

/** Sizes as data: fields of one uniform buffer, a kernel's last binding. */
export class SizeTable implements Sizes {
  private readonly fields = new Map<string, number>();

  of(name: string, value: number): string {
    let field = name;
    // Two numbers of one name are two fields.
    for (let i = 2; (this.fields.get(field) ?? value) !== value; i++) field = `${name}_${i}`;
    this.fields.set(field, value);
    return `sizes.${field}`;
  }

  signed(name: string, value: number): string {
    return `i32(${this.of(name, value)})`;
  }

  length(): string {
    return '';
  }

  /** Module-scope text; call it when the rest of the text is complete. */
  declaration(binding: number): string {
    const fields = [...this.fields.keys()].map((name) => `${name}: u32`);
    return `struct Sizes { ${fields.join(', ')} }\n@group(0) @binding(${binding}) var<uniform> sizes: Sizes;`;
  }

  /** The buffer's words. */
  get data(): Uint32Array {
    return Uint32Array.from(this.fields.values());
  }
}

/** Adds to a kernel made with `sizes` what they need: a table's declaration before its text, its data beside it. */
export function withSizes<K extends { wgsl: string; bindings: readonly unknown[] }>(
  kernel: K,
  sizes: Sizes,
): K & { sizes?: Uint32Array } {
  if (!(sizes instanceof SizeTable) || !sizes.data.length) return kernel;
  // Directives come first in a module.
  const [directives] = /^(?:(?:enable|diagnostic)\b[^;]*;\s*)*/.exec(kernel.wgsl)!;
  const rest = kernel.wgsl.slice(directives.length);
  return {
    ...kernel,
    wgsl: `${directives}${sizes.declaration(kernel.bindings.length)}\n${rest}`,
    sizes: sizes.data,
  };
}

/** Operations that a CPU takes about 10 ms for, a tenth of what a text takes it to compile. */
const LITTLE_WORK = 2 ** 27;

/**
 * A table on adapters that run on the CPU, literals on GPUs. What multiplies much keeps its literals there as well: sixteen rows of f16 were 8 % slower
 * with a table on lavapipe, where smaller products showed no difference.
 *
 * @param flops of products; 0 for what memory bounds
 */
export const sizesFor = (target: TargetProfile, flops = 0): Sizes =>
  target.software && flops < LITTLE_WORK ? new SizeTable() : LITERALS;
