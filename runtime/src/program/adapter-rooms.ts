// Where a program takes adapters' factors: the fact `adapters`, which the compiler writes and an engine fills ports by.
// Programs come from files too, so the fact is checked against the ports it names.

import { KontextError } from '../errors.ts';
import type { Program } from './types.ts';

/** Ranks of rooms are multiples of this: factors are read four values at a time, and matmuls step by eight along k. */
export const RANK_UNIT = 8;

/** One linear layer's ports: y = x·Wᵀ + (scale ∘ x·downᵀ)·upᵀ. */
export interface ModuleRoom {
  /** The layer's name in the checkpoint. */
  module: string;
  /** Rows of `down`: the ranks of all adapters together may fill it. */
  rank: number;
  /** Input features of the layer. */
  cols: number;
  /** Port `[rank, cols]`. */
  down: string;
  /** Ports `[end − first, rank]`: each holds some of the layer's output features, all together every one that the program computes. */
  up: { port: string; rows: [first: number, end: number] }[];
  /** Port `[1, rank]`, f32: multiplies `x·downᵀ`. */
  scale: string;
}

/**
 * The room for adapters that a program has; none for most.
 *
 * @throws KontextError `program-invalid` when the fact does not fit the ports
 */
export function adapterRooms(program: Program): readonly ModuleRoom[] {
  const rooms = program.facts.adapters;
  if (rooms === undefined) return [];
  const shapes = new Map(
    program.ports.map(({ name, shape, direction }) => [name, direction === 'in' ? shape.join() : '']),
  );
  const fits = (room: unknown): boolean => {
    if (typeof room !== 'object' || room === null) return false;
    const { module, rank, cols, down, up, scale } = room as Partial<Record<keyof ModuleRoom, unknown>>;
    if (typeof module !== 'string' || !Array.isArray(up) || up.length === 0) return false;
    const part = (value: unknown): boolean => {
      const { port, rows } = (value ?? {}) as Partial<Record<'port' | 'rows', unknown>>;
      if (!Array.isArray(rows) || rows.length !== 2 || !rows.every((n) => Number.isSafeInteger(n) && n >= 0))
        return false;
      return shapes.get(port as string) === `${rows[1] - rows[0]},${rank}`;
    };
    return (
      shapes.get(down as string) === `${rank},${cols}` && shapes.get(scale as string) === `1,${rank}` && up.every(part)
    );
  };
  if (Array.isArray(rooms) && rooms.every(fits)) return rooms as ModuleRoom[];
  throw new KontextError('program-invalid', `"${program.label}": its fact "adapters" does not fit its ports.`, {
    program: program.label,
  });
}

/** Names of the ports that hold adapters' factors and scales. @throws KontextError as {@link adapterRooms} */
export const adapterPorts = (program: Program): ReadonlySet<string> =>
  new Set(adapterRooms(program).flatMap(({ down, up, scale }) => [down, scale, ...up.map(({ port }) => port)]));
