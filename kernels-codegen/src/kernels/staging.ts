// Copies to workgroup memory as straight-line text: all loads of a step into variables, then all stores.
// A loop over elements compiles to a chain of branches in which every load waits for the one before it: 16 trips to the
// cache in a step of the matmul, where this text has one. It doubled the simulated speed on NVIDIA (docs/design/kernels.md).

/** What one thread moves at a time. */
export interface Item {
  /** Statements the values need; names carry the item's tag. */
  before?: string;
  /** WGSL expressions that read. */
  values: string[];
  /** Statements that write, given the names of the values. */
  store(values: readonly string[]): string;
}

export interface Copy {
  /** Items, spread over the threads. */
  count: number;
  /** Items in a row: neighbouring threads take neighbours of a row. */
  width: number;
  /**
   * Rows lie an odd number of 16 bytes apart in workgroup memory, and items are 16 bytes: eight neighbouring threads, whose stores go together,
   * take pairs of every other row, which meet no bank twice and are whole sectors of 32 bytes where they are read.
   */
  spread?: boolean;
  /** Registers of one of an item's values; 2, a vector of four f16, when left out. */
  words?: number;
  /**
   * @param at WGSL u32 expressions of the item's place
   * @param tag what distinguishes the item's names from those of others in the same scope
   * @param step number of the item among those of its thread
   */
  item(at: Place, tag: string, step: number): Item;
}

export interface Place {
  /** The row is this and `more`, a constant kept apart: products with a stride then differ by constants. */
  row: string;
  more: number;
  /** Number in the row. */
  col: string;
}

/** WGSL u32 expression of a place's row. */
export const rowOf = ({ row, more }: Place): string => (more ? `(${row} + ${more}u)` : row);

/** WGSL index of a place in rows `stride` apart, of which each row here is `unit`. */
export const indexOf = ({ row, more, col }: Place, stride: number, unit = 1): string =>
  `${row} * ${unit * stride}u + ${col} + ${more * unit * stride}u`;

/**
 * Where the item of step `step` lies. Threads that are whole rows stay in their column and move by a known number of rows, and the text says so:
 * compilers cannot know it of `(thread + 128) / 32`, and kept two registers an item for what is one register and constants.
 */
export function placeOf({ width, spread }: Pick<Copy, 'width' | 'spread'>, threads: number, step: number): Place {
  const first = step * threads;
  if (spread && (width === 2 || width === 4) && threads % (8 * width) === 0) {
    return {
      row: `(thread / ${8 * width}u * 8u + thread / 2u % 4u * 2u + thread / ${4 * width}u % 2u)`,
      more: first / width,
      col: width === 2 ? 'thread % 2u' : '(thread % 2u + thread / 8u % 2u * 2u)',
    };
  }
  if (threads % width === 0) {
    return { row: `thread / ${width}u`, more: first / width, col: `thread % ${width}u` };
  }
  if (width % threads === 0) {
    return {
      row: '0u',
      more: Math.floor(first / width),
      col: first % width ? `(thread + ${first % width}u)` : 'thread',
    };
  }
  const i = first ? `(thread + ${first}u)` : 'thread';
  return { row: `${i} / ${width}u`, more: 0, col: `${i} % ${width}u` };
}

/** Registers of what a thread holds between loads and stores; no hot kernel exceeds it. */
const MOST_IN_FLIGHT = 64;

/**
 * Statements that do all `copies`; the WGSL name `thread` is in scope.
 * @param open text that makes a loop's bound unknown, for drivers that run on the CPU: they get loops, which compile sooner
 */
export function stage(copies: readonly Copy[], threads: number, open = ''): string {
  if (open) return copies.map((copy) => loop(copy, threads, open)).join('\n');
  const text: string[] = [];
  let loads: string[] = [];
  let stores: string[] = [];
  let held = 0;
  const flush = (): void => {
    if (loads.length) text.push(`{\n${[...loads, ...stores].join('\n')}\n}`);
    [loads, stores, held] = [[], [], 0];
  };
  const tails: string[] = [];
  for (const [c, copy] of copies.entries()) {
    for (let first = 0, step = 0; first < copy.count; first += threads, step++) {
      const i = first ? `(thread + ${first}u)` : 'thread';
      const item = copy.item(placeOf(copy, threads, step), `${c}_${step}`, step);
      const names = item.values.map((_, k) => `v${c}_${step}_${k}`);
      const read = [item.before ?? '', ...item.values.map((value, k) => `let ${names[k]} = ${value};`)].filter(Boolean);
      if (first + threads > copy.count) {
        tails.push(`if (${i} < ${copy.count}u) {\n${[...read, item.store(names)].join('\n')}\n}`);
        continue;
      }
      const words = names.length * (copy.words ?? 2);
      if (held + words > MOST_IN_FLIGHT) flush();
      loads.push(...read);
      stores.push(item.store(names));
      held += words;
    }
  }
  flush();
  return [...text, ...tails].join('\n');
}

export interface Prefetch {
  /** Statements that declare the variables, zero. */
  declare: string;
  /** Statements that read into them. */
  load: string;
  /** Statements that write them to workgroup memory. */
  store: string;
}

/** A copy in two halves, so that a step's arithmetic lies between its loads and its stores. @param type of the values, or of each of an item's */
export function prefetch(copy: Copy, threads: number, name: string, type: string | readonly string[]): Prefetch {
  const typeOf = (k: number): string => (typeof type === 'string' ? type : type[k]!);
  const steps = Array.from({ length: Math.ceil(copy.count / threads) }, (_, step) => {
    const i = step ? `(thread + ${step * threads}u)` : 'thread';
    const { before = '', values, store } = copy.item(placeOf(copy, threads, step), `${name}_${step}`, step);
    const names = values.map((_, k) => `${name}${step}_${k}`);
    const guard = (text: string): string =>
      (step + 1) * threads > copy.count ? `if (${i} < ${copy.count}u) { ${text} }` : text;
    return {
      declare: names.map((v, k) => `var ${v}: ${typeOf(k)};`).join(' '),
      load: guard([before, ...values.map((value, k) => `${names[k]} = ${value};`)].filter(Boolean).join(' ')),
      store: guard(store(names)),
    };
  });
  const all = (part: 'declare' | 'load' | 'store'): string => steps.map((step) => step[part]).join('\n    ');
  return { declare: all('declare'), load: all('load'), store: all('store') };
}

/** Type of the values; the step after each copy's last; the first copy's first; columns of a step. */
export interface OneOf {
  type: string;
  ends: readonly number[];
  start: number;
  step: number;
}

/**
 * One of several copies to the same place, by the step `t` of a loop over k. Only the loads stand in branches, and in each of
 * them `k` counts from where its copy began.
 */
export function prefetchOneOf(copies: readonly Copy[], threads: number, name: string, o: OneOf): Prefetch {
  const either = copies.map((copy) => prefetch(copy, threads, name, o.type));
  const loads = either.map(({ load }, i) => {
    const first = i ? o.ends[i - 1]! : o.start;
    const own = `{\nlet k = ${first ? `(t - ${first}u) * ${o.step}u` : `t * ${o.step}u`};\n${load}\n}`;
    return i < either.length - 1 ? `if (t < ${o.ends[i]}u) ${own}` : own;
  });
  return { ...either[0]!, load: loads.join(' else ') };
}

/** Statements that do one of several copies, see {@link prefetchOneOf}. */
export function stageOneOf(copies: readonly Copy[], threads: number, o: OneOf): string {
  const { declare, load, store } = prefetchOneOf(copies, threads, 'v', o);
  return `{\n${declare}\n${load}\n${store}\n}\n`;
}

/** Statements that write four vectors along k of neighbouring columns as four vectors along the columns, `stride` apart. */
export const storeTransposed = (
  array: string,
  at: string,
  stride: number,
  type: string,
  w: readonly string[],
): string =>
  [...'xyzw']
    .map((e, kk) => `${array}[${at} + ${kk * stride}u] = ${type}(${w.map((v) => `${v}.${e}`).join(', ')});`)
    .join('\n');

function loop({ count, width, item }: Copy, threads: number, open: string): string {
  const { before, values, store } = item({ row: `i / ${width}u`, more: 0, col: `i % ${width}u` }, 'i', 0);
  const names = values.map((_, k) => `v${k}`);
  const body = [before ?? '', ...values.map((value, k) => `let ${names[k]} = ${value};`), store(names)];
  return `for (var i = thread; i < ${count}u${open}; i += ${threads}u) {\n${body.filter(Boolean).join('\n')}\n}`;
}
