// The Program: what the compiler hands to the runtime, and nothing else passes between them.
// Plain JSON on purpose: it can be saved ahead of time, diffed in a review and loaded without the compiler.

import type { WeightFormat } from './formats.ts';

export { STORED_FORMATS, type StoredFormat, type WeightFormat } from './formats.ts';

/** Raised whenever a program written by an older compiler could be misread. */
export const PROGRAM_SCHEMA = 1;

/** Element types of activations, ports and constants. */
export type ElementType = 'f32' | 'f16' | 'u32' | 'i32';

/** A tile shape a device multiplies in one instruction: `a[m, k] · b[k, n]`. */
export interface SubgroupMatrixConfig {
  /** Rows of the left operand and of the result. */
  m: number;
  /** Columns of the right operand and of the result. */
  n: number;
  /** Columns of the left operand, rows of the right one. */
  k: number;
  /** Type of the operands. */
  componentType: 'f32' | 'f16';
  /** Type of the sums. */
  resultType: 'f32' | 'f16';
}

/** What a program assumes of a device; {@link checkProgram} compares it with a real one. */
export interface Requirements {
  /** WebGPU feature names, sorted. */
  features: string[];
  /** Lower bounds on `GPUSupportedLimits`, by their WebGPU names. */
  limits: Record<string, number>;
  /** Set when a kernel is only right for these subgroup sizes. */
  subgroupSize?: { min: number; max: number };
  /** Set when a kernel uses this matrix shape. */
  subgroupMatrix?: SubgroupMatrixConfig;
}

/** A buffer that outlives one run: an input, an output, or state that a run updates in place. */
export interface Port {
  name: string;
  direction: 'in' | 'out' | 'inout';
  type: ElementType;
  /** Row-major. */
  shape: number[];
  bytes: number;
}

/** A weight the program binds. Names are those of the original (BFL, T5, CLIP) checkpoints. */
export interface WeightRequest {
  name: string;
  /** Only these rows (axis 0) of the checkpoint's tensor: `[first, end)`. */
  rows?: [number, number];
  /** Only these columns (axis 1) of the checkpoint's tensor: `[first, end)`. */
  cols?: [number, number];
  format: WeightFormat;
  /** Stored shape, after `layout`. */
  shape: [number, number];
  /**
   * `matrix`: the checkpoint's tensor read as `[axis 0, all others]`.
   * `ohwi`: a convolution's `[out, in, kh, kw]` stored as `[out, kh·kw·inPadded]`, input channels padded with zeros to `padIn`.
   */
  layout: 'matrix' | 'ohwi';
  /** Input channels after padding; only with `ohwi`. */
  padIn?: number;
  bytes: number;
}

/** Small immutable data known when compiling (index tables). */
export interface Constant {
  type: ElementType;
  /** Little-endian bytes, base64. */
  data: string;
  bytes: number;
}

export type BindingAccess = 'read' | 'read_write' | 'uniform';

/** One distinct compute shader; entry point `main`, all bindings in group 0 in this order. */
export interface Kernel {
  label: string;
  wgsl: string;
  bindings: BindingAccess[];
}

export type BufferKind = 'port' | 'slab' | 'weight' | 'constant';

/** Part of a buffer: kind, index into the program's list of that kind, byte offset (a multiple of 256), byte size. */
export type BufferRange = [kind: BufferKind, index: number, offset: number, size: number];

export interface Dispatch {
  label: string;
  /** Index into `kernels`. */
  kernel: number;
  bindings: BufferRange[];
  workgroups: [number, number, number];
  /** Multiply-adds count as two. */
  flops: number;
  /** Bytes that must be read and written at least once. */
  bytes: number;
}

/** A component of the model at one shape for one kind of device. */
export interface Program {
  schema: number;
  /** `clip`, `t5`, `modulation`, `denoise`, `vae-encode`, `vae-decode`, or a helper's name. */
  component: string;
  /** For people: component, shape, target. */
  label: string;
  requires: Requirements;
  ports: Port[];
  /** Bytes of each scratch buffer; the contents do not survive a run and slabs are shared between programs. */
  slabs: number[];
  weights: WeightRequest[];
  constants: Constant[];
  kernels: Kernel[];
  dispatches: Dispatch[];
  /** Facts about the component that a caller needs to fill its ports (token counts, position segments, …). */
  facts: Record<string, unknown>;
}
