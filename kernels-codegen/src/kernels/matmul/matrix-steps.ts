// The loop over k of the matmul on matrix instructions: what each step stages, of which operands.
// Staged in place, or read ahead into variables where the schedule has two buffers.

import type { BlockReader } from '../../wgsl/sixteen.ts';
import { type Copy, type Prefetch, prefetch, prefetchOneOf, stage, stageOneOf } from '../staging.ts';
import type { Part } from './rows16.ts';

export interface StepOptions {
  parts: readonly Part[];
  threads: number;
  tileK: number;
  /** Type of 16 bytes of a tile. */
  type: string;
  /** Fills a tile by rows, with `k` in scope. */
  rows(tile: 'a' | 'b', read: Part['left'][0]['read']): Copy;
  /** Fills the right operand's tile by stored blocks, with `k` in scope. */
  blocks(block: BlockReader): Copy;
}

export interface MatrixSteps {
  /** Steps of all parts. */
  count: number;
  /** Statements that stage the step `t`. */
  stage(): string;
  /** The same in two halves, of the step `t` both. */
  prefetch(): Prefetch;
}

/** Parts follow one another; in each, steps of left operands that follow one another meet one right operand. */
export function matrixSteps({ parts, threads, tileK, type, rows, blocks }: StepOptions): MatrixSteps {
  let count = 0;
  const each = parts.map(({ left, right }, i) => {
    const start = count;
    // Where each left operand ends, in steps and in columns of the part.
    const ends = left.map(({ cols }) => {
      count += Math.ceil(cols / tileK);
      return count;
    });
    const end = count;
    return {
      a: left.map(({ read }) => rows('a', read)),
      b: 'block' in right ? blocks(right.block) : rows('b', right.read),
      typeB: 'block' in right ? right.block.types : type,
      oneOf: { type, ends, start, step: tileK },
      /** Statements of this part alone, with its `k`. */
      own: (text: string): string =>
        `${i < parts.length - 1 ? `if (t < ${end}u) ` : ''}{
let k = ${start ? `(t - ${start}u) * ${tileK}u` : `t * ${tileK}u`};
${text}
}`,
    };
  });
  return {
    count,
    // One operand after the other: together they take the registers that a third workgroup on NVIDIA's units needs, and
    // three hide a second trip to the cache better than two hide one.
    stage: () =>
      each
        .map(({ a, b, oneOf, own }) =>
          own(`${a.length === 1 ? stage(a, threads) : stageOneOf(a, threads, oneOf)}\n${stage([b], threads)}`),
        )
        .join(' else '),
    prefetch: () => {
      const ahead = each.map(({ a, b, typeB, oneOf, own }, i) => {
        const [left, right] = [prefetchOneOf(a, threads, `a${i}v`, oneOf), prefetch(b, threads, `b${i}v`, typeB)];
        return {
          declare: `${left.declare}\n${right.declare}`,
          load: own(`${left.load}\n${right.load}`),
          store: own(`${left.store}\n${right.store}`),
        };
      });
      const either = (half: 'load' | 'store'): string => ahead.map((part) => part[half]).join(' else ');
      return {
        declare: ahead.map(({ declare }) => declare).join('\n'),
        load: either('load'),
        store: either('store'),
      };
    },
  };
}
