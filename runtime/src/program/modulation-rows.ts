// The table of modulation rows, one for each step: its columns, and how many rows one program makes.
// Apart from the network, because whoever runs programs needs it and the compiler need not be there.

/** Of the transformer. */
interface Depths {
  hidden: number;
  doubleBlocks: number;
  singleBlocks: number;
}

/** Columns of one row, in order: each double block's image then text rows, single blocks, final layer. */
export function modulationLayout(spec: Depths): { name: string; first: number; count: number }[] {
  const names: [string, number][] = [];
  for (let i = 0; i < spec.doubleBlocks; i++) {
    names.push([`double_blocks.${i}.img_mod.lin`, 6], [`double_blocks.${i}.txt_mod.lin`, 6]);
  }
  for (let i = 0; i < spec.singleBlocks; i++) names.push([`single_blocks.${i}.modulation.lin`, 3]);
  names.push(['final_layer.adaLN_modulation.1', 2]);
  let first = 0;
  return names.map(([name, chunks]) => {
    const at = first;
    first += chunks * spec.hidden;
    return { name, first: at, count: chunks * spec.hidden };
  });
}

export function modulationWidth(spec: Depths): number {
  const last = modulationLayout(spec).at(-1)!;
  return last.first + last.count;
}

/** More rows than this are made in turn also where one binding could hold them: a row of FLUX.1 is 4 MiB. */
const MOST_BYTES = 512 * 2 ** 20;

/**
 * Steps whose rows one program makes: all of them where they fit a binding, else as many in each of the fewest programs.
 *
 * WebGPU's default binding of 128 MiB holds 31 rows of FLUX.1.
 */
export function rowsAtOnce(steps: number, spec: Depths, limits: { maxStorageBufferBindingSize: number }): number {
  const bytes = Math.min(limits.maxStorageBufferBindingSize, MOST_BYTES);
  const most = Math.max(1, Math.floor(bytes / (4 * modulationWidth(spec))));
  return Math.ceil(steps / Math.ceil(steps / most));
}
