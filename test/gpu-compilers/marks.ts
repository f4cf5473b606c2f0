// What is written around each pipeline's compilation, so that a log can be cut into kernels.

/** After `@@KERNEL `. */
export interface Mark {
  program: string;
  label: string;
  /** Dispatches of it in the program, and their operations together. */
  uses: number;
  flops: number;
  /** Invocations of a workgroup. */
  threads: number;
}

/** After `@@END `. */
export interface MarkEnd {
  /** CPU time of the compilation. */
  ms: number;
  error?: string;
}
