// Which values live in a program's slabs, where and how long: read off its dispatches.
// The plan itself stays in the compiler; a bundle holds only what the runtime needs.
import type { Program } from '../../../runtime/src/program/types.ts';

/** A value in a slab, alive from the dispatch that writes it to the last one that reads it. */
export interface SlabValue {
  slab: number;
  offset: number;
  bytes: number;
  first: number;
  last: number;
  /** Label of the dispatch that writes it. */
  label: string;
  /** Kernel family of that dispatch. */
  family: string;
}

export function slabValues(program: Program): SlabValue[] {
  const values: SlabValue[] = [];
  /** Values of each slab that may still be read. */
  const current: SlabValue[][] = program.slabs.map(() => []);
  const overwrites = program.kernels.map(({ wgsl, bindings }) =>
    bindings.map((access, i) => access === 'read_write' && !readsBinding(wgsl, i)),
  );
  program.dispatches.forEach(({ kernel, bindings, label }, time) => {
    // What a dispatch reads is alive until then, whatever it writes.
    for (const written of [false, true]) {
      bindings.forEach(([kind, slab, offset, bytes], binding) => {
        if (kind !== 'slab' || overwrites[kernel]![binding] !== written) return;
        const touched = current[slab]!.filter((v) => v.offset < offset + bytes && offset < v.offset + v.bytes);
        if (!written && touched.length > 0) {
          for (const value of touched) value.last = time;
          return;
        }
        const family = program.kernels[kernel]!.label.split(' ')[0]!;
        const value = { slab, offset, bytes, first: time, last: time, label, family };
        values.push(value);
        current[slab] = [...current[slab]!.filter((v) => !touched.includes(v)), value];
      });
    }
  });
  return values;
}

/** True when the kernel reads the old contents of a `read_write` binding: an update in place, not a new value. */
function readsBinding(wgsl: string, binding: number): boolean {
  const name = new RegExp(`@binding\\(${binding}\\)\\s*var<[^>]*>\\s*(\\w+)`).exec(wgsl)?.[1];
  if (name === undefined) return true;
  if (new RegExp(`subgroupMatrixLoad[^;]*&${name}\\b`).test(wgsl)) return true;
  for (const { index } of wgsl.matchAll(new RegExp(`\\b${name}\\[`, 'g'))) {
    let depth = 0;
    let end = index + name.length;
    do {
      if (wgsl[end] === '[') depth++;
      if (wgsl[end] === ']') depth--;
      end++;
    } while (depth > 0);
    // An element that is not the left side of an assignment is read.
    if (!/^(\.\w+)?\s*=[^=]/.test(wgsl.slice(end, end + 12))) return true;
  }
  return false;
}
