// Adds up GPU memory as the engine would allocate it, without a GPU: ports, constants, shared slabs, weights, upload buffers.

import { DEFAULT_WINDOW_BYTES, planWindows } from '../../../runtime/src/execute/windows.ts';
import { paddedBytes } from '../../../runtime/src/gpu/device.ts';
import type { Program } from '../../../runtime/src/program/types.ts';
import { STAGING_BYTES, weightKey } from '../../../runtime/src/weights/store.ts';

interface Bound {
  program: Program;
  own: number;
}

/** What is allocated, and the most that has been. One for each run of a pipeline. */
export class MemoryLedger {
  private bytes = 0;
  private high = 0;
  private readonly bound = new Map<string, Bound>();
  private slabs = 0;
  private readonly weights = new Map<string, Map<string, number>>();
  private readonly staged = new Set<string>();

  /** The peak since the last call. */
  takePeak(): number {
    const peak = this.high;
    this.high = this.bytes;
    return peak;
  }

  add(bytes: number): void {
    this.bytes += bytes;
    this.high = Math.max(this.high, this.bytes);
  }

  /** There for a moment: a readback. */
  touch(bytes: number): void {
    this.add(paddedBytes(bytes));
    this.add(-paddedBytes(bytes));
  }

  /**
   * @param options `shared`: ports that are another program's buffers; `ready`: weights come without transcoding; `changed`: adapters
   * are added to some, which takes upload buffers for what is read and for what is made of it
   */
  bind(
    program: Program,
    part: string,
    options: { streamed?: boolean; shared?: readonly string[]; ready?: boolean; changed?: boolean } = {},
  ): void {
    this.unbind(program.component);
    const { streamed = false, shared = [], ready = false, changed = false } = options;
    const ports = program.ports
      .filter(({ name }) => !shared.includes(name))
      .reduce((sum, p) => sum + paddedBytes(p.bytes), 0);
    const own = ports + program.constants.reduce((sum, { bytes }) => sum + paddedBytes(bytes), 0);
    this.add(own);
    this.bound.set(program.component, { program, own });
    if (program.weights.length > 0 && (!ready || changed)) this.stage(part);
    if (program.weights.length > 0 && changed) this.stage(changedOf(part));
    if (!streamed) this.load(program, part);
    this.fitSlabs();
    if (streamed) this.stream(program);
  }

  unbind(component: string): void {
    const entry = this.bound.get(component);
    if (!entry) return;
    this.bound.delete(component);
    this.add(-entry.own);
    // Slabs shrink with the next program that is bound.
    if (this.bound.size === 0) this.fitSlabs();
  }

  /** Programs, weights and upload buffers of a part. */
  release(part: string, components: readonly string[]): void {
    for (const component of components) this.unbind(component);
    for (const bytes of this.weights.get(part)?.values() ?? []) this.add(-bytes);
    this.weights.delete(part);
    for (const one of [part, changedOf(part)]) if (this.staged.delete(one)) this.add(-STAGING_BYTES);
  }

  private stage(part: string): void {
    if (this.staged.has(part)) return;
    this.staged.add(part);
    this.add(STAGING_BYTES);
  }

  private load(program: Program, part: string): void {
    const held = this.weights.get(part) ?? new Map<string, number>();
    this.weights.set(part, held);
    for (const request of program.weights) {
      const key = weightKey(request);
      if (held.has(key)) continue;
      held.set(key, paddedBytes(request.bytes));
      this.add(paddedBytes(request.bytes));
    }
  }

  /** Two windows at a time: the one that runs and the one that loads. */
  private stream(program: Program): void {
    const sum = (indices: readonly number[]) =>
      indices.reduce((total, i) => total + paddedBytes(program.weights[i]!.bytes), 0);
    const windows = planWindows(program, DEFAULT_WINDOW_BYTES);
    this.add(sum(windows[0]?.load ?? []));
    for (const [k, window] of windows.entries()) {
      this.add(sum(windows[k + 1]?.load ?? []));
      this.add(-sum(window.free));
    }
  }

  private fitSlabs(): void {
    const wanted: number[] = [];
    for (const { program } of this.bound.values()) {
      [...program.slabs]
        .sort((a, b) => b - a)
        .forEach((size, rank) => {
          wanted[rank] = Math.max(wanted[rank] ?? 0, size);
        });
    }
    const bytes = wanted.reduce((sum, size) => sum + paddedBytes(size), 0);
    this.add(bytes - this.slabs);
    this.slabs = bytes;
  }
}

/** The store of a part's changed weights. */
const changedOf = (part: string): string => `${part} changed`;
