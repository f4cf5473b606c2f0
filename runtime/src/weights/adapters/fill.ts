// Fills a program's room for adapters: which factors, at which strength, for every layer.
// Only what changed is written: for other strengths a few numbers a layer, for other adapters their factors.

import { KontextError } from '../../errors.ts';
import type { Executable } from '../../execute/executable.ts';
import { adapterPorts, adapterRooms, type ModuleRoom } from '../../program/adapter-rooms.ts';
import { type Share, scalesOf, stackedRank, stackFactors } from './stack.ts';
import type { Adapter, AdapterUpdate } from './types.ts';

/** What one executable's room holds. */
export class RoomContents {
  private readonly rooms: readonly ModuleRoom[];
  private readonly held = new Map<string, { of: readonly (readonly [Adapter, AdapterUpdate])[]; unit: Float32Array }>();

  /** @throws KontextError `program-invalid` */
  constructor(private readonly executable: Executable) {
    this.rooms = adapterRooms(executable.program);
  }

  /** Rank of each layer's room; undefined when the program has none. */
  get ranks(): Readonly<Record<string, number>> | undefined {
    return this.rooms.length > 0 ? Object.fromEntries(this.rooms.map(({ module, rank }) => [module, rank])) : undefined;
  }

  /** Of the ports that hold factors and scales. */
  get bytes(): number {
    const { program } = this.executable;
    const names = adapterPorts(program);
    return program.ports.reduce((sum, { name, bytes }) => sum + (names.has(name) ? bytes : 0), 0);
  }

  /**
   * Makes the next runs use these shares, by module; layers without any add nothing.
   *
   * @throws KontextError `program-mismatch` when they need more room, `weights-invalid` for factors that are no finite numbers, `aborted`; what was written before is then forgotten
   */
  async fill(shares: ReadonlyMap<string, readonly Share[]>, signal?: AbortSignal): Promise<void> {
    this.refuseTooLarge(shares);
    for (const room of this.rooms) {
      const wanted = shares.get(room.module) ?? [];
      const held = this.held.get(room.module);
      const same =
        held?.of.length === wanted.length &&
        held.of.every(([adapter, update], i) => adapter === wanted[i]!.adapter && update === wanted[i]!.update);
      const unit = same ? held.unit : await this.write(room, wanted, signal);
      this.executable.write(room.scale, scalesOf(wanted, unit));
    }
  }

  private refuseTooLarge(shares: ReadonlyMap<string, readonly Share[]>): void {
    const { label } = this.executable.program;
    const rooms = new Map(this.rooms.map((room) => [room.module, room.rank]));
    for (const [module, list] of shares) {
      const [rank, room] = [stackedRank(list), rooms.get(module) ?? 0];
      if (rank <= room) continue;
      throw new KontextError(
        'program-mismatch',
        `"${label}" has room for adapters of rank ${room} at ${module}; these need ${rank}. Compile it with more room, or use fewer adapters.`,
        { module, rank, room },
      );
    }
  }

  private async write(
    room: ModuleRoom,
    shares: readonly Share[],
    signal: AbortSignal | undefined,
  ): Promise<Float32Array> {
    this.held.delete(room.module);
    const of = shares.map(({ adapter, update }) => [adapter, update] as const);
    // A scale of zero is enough to switch a layer off; its old factors may stay.
    let unit: Float32Array = new Float32Array(room.rank);
    if (shares.length > 0) {
      const rows = Math.max(...room.up.map(({ rows: [, end] }) => end));
      const stack = await stackFactors(shares, rows, room.cols, room.rank, signal);
      this.executable.write(room.down, stack.down);
      for (const {
        port,
        rows: [first, end],
      } of room.up) {
        this.executable.write(port, stack.up.subarray(first * room.rank, end * room.rank));
      }
      unit = stack.unit;
    }
    this.held.set(room.module, { of, unit });
    return unit;
  }
}
