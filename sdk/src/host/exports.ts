// What the AssemblyScript module exports, by the file of `sdk/assembly` that has it.
// Apart from the module's start and its facades, which all need it.

/** Exports of `sdk/assembly/random.ts`. */
export interface RandomExports {
  generatorBytes(): number;
  generatorSeed(generator: number, seed: number): void;
  generatorNormal(generator: number, out: number, count: number, mean: number, std: number, bfloat16: number): void;
}

/** Exports of `sdk/assembly/resize.ts`. */
export interface ResizeExports {
  resizeBegin(
    width: number,
    height: number,
    channels: number,
    outWidth: number,
    outHeight: number,
    filter: number,
  ): number;
  resizeBand(job: number): number;
  resizeBandRows(job: number): number;
  resizeOut(job: number): number;
  resizeOutRows(job: number): number;
  resizeStep(job: number, rows: number): number;
}

/** Exports of `sdk/assembly/schedule.ts`. */
export interface ScheduleExports {
  linearSigmas(out: number, steps: number): void;
  dynamicMu(tokens: number, baseTokens: number, maxTokens: number, baseShift: number, maxShift: number): number;
  shiftExponential(sigmas: number, count: number, mu: number): void;
  shiftStatic(sigmas: number, count: number, shift: number): void;
  logitNormalDensity(t: number, mean: number, std: number): number;
  logitNormalQuantile(q: number, mean: number, std: number): number;
  sigmoidInPlace(values: number, count: number): void;
}

/** Exports of sdk/assembly/clip-bpe.ts and t5-unigram.ts. */
export interface TokenizerExports {
  clipCreate(table: number, bytes: number): number;
  clipEncode(handle: number, text: number, bytes: number, out: number, length: number): number;
  t5Create(table: number, bytes: number): number;
  t5Encode(handle: number, text: number, bytes: number, out: number, length: number): number;
}

/** Memory management of `sdk/assembly/memory.ts`; addresses are byte offsets into `memory`. */
export interface MemoryExports {
  readonly memory: WebAssembly.Memory;
  allocate(bytes: number): number;
  release(address: number): number;
  scratch(bytes: number): number;
  reset(): void;
  errorDetail(): number;
}

/** Everything the module exports. */
export interface HostExports extends MemoryExports, ScheduleExports, RandomExports, ResizeExports, TokenizerExports {}
