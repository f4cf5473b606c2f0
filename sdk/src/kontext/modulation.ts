// One prompt's modulation rows: each block's shifts, scales and gates at every step, made before the loop reads them.
// All steps at once where they fit, else window by window as the loop goes on: a thousand rows of FLUX.1 are four gigabytes.

import type { Executable, PortCopy, Unsound } from '../../../runtime/src/execute/executable.ts';
import { readBuffer } from '../../../runtime/src/execute/ports.ts';
import { BufferUsage } from '../../../runtime/src/gpu/flags.ts';
import { modulationWidth, rowsAtOnce } from '../../../runtime/src/program/modulation-rows.ts';
import { type Rounding, sinusoids } from './conditioning.ts';
import type { Parts, Work } from './parts.ts';
import { allFinite } from './stages/finite.ts';

/** What the rows depend on beside the weights. */
export interface ModulationInputs {
  /** Of the steps, without the final 0. */
  sigmas: Float32Array;
  /** CLIP's vector. */
  pooled: Float32Array<ArrayBuffer>;
  guidance: number;
  conditioning: Rounding;
}

export class ModulationRows {
  readonly #rowBytes: number;
  /** Rows of one window. */
  readonly #rows: number;
  /** First row of the window in the buffer. */
  #first: number | undefined;
  #buffer: GPUBuffer | undefined;

  constructor(
    private readonly parts: Parts,
    private readonly inputs: ModulationInputs,
  ) {
    const { transformer } = parts.specs;
    this.#rowBytes = 4 * modulationWidth(transformer);
    this.#rows = rowsAtOnce(inputs.sigmas.length, transformer, parts.target.limits);
  }

  /** The buffer that windows go to; its owner frees it. */
  async allocate(): Promise<GPUBuffer> {
    const bytes = this.#rows * this.#rowBytes;
    this.#buffer = await this.parts.allocate('modulation rows', bytes, BufferUsage.COPY_SRC | BufferUsage.COPY_DST);
    return this.#buffer;
  }

  /** Puts the window with row `at` into the buffer, unless it is there. */
  async reach(at: number, work: Work): Promise<void> {
    const first = at - (at % this.#rows);
    if (first === this.#first) return;
    const { parts, inputs } = this;
    const executable = await this.#bind(first, work);
    const buffer = this.#buffer!;
    await parts.run(executable, work, {
      after: (encoder) => encoder.copyBufferToBuffer(executable.port('modulation'), 0, buffer, 0, buffer.size),
    });
    this.#first = first;
    // Between windows the loop runs: its memory is not to be shared with a program that waits.
    if (this.#rows < inputs.sigmas.length) await parts.unbind('modulation');
  }

  /** Row `at`, which must have been reached, into a program's port. */
  copyOf(at: number): PortCopy {
    const bytes = this.#rowBytes;
    return { from: this.#buffer!, fromOffset: (at - this.#first!) * bytes, to: 'modulation', toOffset: 0, bytes };
  }

  /** The layer in which a row stopped being finite, if one did in the window with row `at`, which must have been reached. */
  async locate(at: number, work: Work): Promise<Unsound | undefined> {
    const { parts } = this;
    const bytes = this.#rows * this.#rowBytes;
    const info = { name: 'modulation rows', direction: 'out', type: 'f32', shape: [bytes / 4], bytes } as const;
    const values = await readBuffer(parts.gpu, this.#buffer!, { ...info, shape: [...info.shape] }, 'f32');
    const row = (at - this.#first!) * (this.#rowBytes / 4);
    if (allFinite(values.subarray(row, row + this.#rowBytes / 4))) return undefined;
    const executable = await this.#bind(this.#first!, work);
    const found = await executable.firstUnsound({ signal: work.signal });
    await parts.unbind('modulation');
    return found;
  }

  /** The program of a window, its inputs written. */
  async #bind(first: number, work: Work): Promise<Executable> {
    const { parts, inputs } = this;
    const executable = await parts.bind({ component: 'modulation', steps: this.#rows }, work);
    executable.write('timesteps', sinusoids('timesteps', this.#window(first), inputs.conditioning));
    executable.write('pooled', inputs.pooled);
    if (parts.specs.transformer.guidance) {
      executable.write('guidance', sinusoids('guidance', [inputs.guidance], inputs.conditioning));
    }
    return executable;
  }

  /** The last window is filled with its last σ, so that all have one program. */
  #window(first: number): Float32Array {
    const { sigmas } = this.inputs;
    return Float32Array.from({ length: this.#rows }, (_, i) => sigmas[Math.min(first + i, sigmas.length - 1)]!);
  }
}
