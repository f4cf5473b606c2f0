// What an adapter file says, once its keys are matched with a model's: which matrices it changes, and by what.
// Nothing here holds data; factors stay in the file until a request uses them.

import type { SourceTensor, WeightSource } from '../source.ts';

/** The networks that adapters change. */
export type AdapterPart = 'transformer' | 'clip' | 't5';

/** A matrix of a Kronecker product: stored whole, or as `a · b`. */
export type KroneckerFactor = { whole: string } | { a: string; b: string };

/** How a change ΔW is stored; the strings are the file's tensor names. */
export type StoredUpdate =
  /** ΔW = up · down (Hu et al. 2021, arXiv:2106.09685) */
  | { kind: 'low-rank'; down: string; up: string }
  /** ΔW = (w1a · w1b) ∘ (w2a · w2b) (Hyeon-Woo et al. 2021, arXiv:2108.06098) */
  | { kind: 'loha'; w1a: string; w1b: string; w2a: string; w2b: string }
  /** ΔW = w1 ⊗ w2 (Yeh et al. 2023, arXiv:2309.14859) */
  | { kind: 'lokr'; w1: KroneckerFactor; w2: KroneckerFactor }
  /** ΔW itself */
  | { kind: 'difference'; tensor: string };

/** One change of one tensor of the model. */
export interface AdapterUpdate {
  part: AdapterPart;
  /** The model's module, under its BFL (T5, CLIP) name: `double_blocks.0.img_attn.qkv`. */
  module: string;
  /** The tensor that changes: the module's `.weight`, `.bias` or `.scale`. */
  tensor: string;
  /** Rows of the model's tensor `[first, end)`; of a vector its elements. */
  rows: [first: number, end: number];
  /** Columns of the model's tensor; 1 for a vector. */
  cols: number;
  /** The file has the second half of the rows first (diffusers' `norm_out`). */
  swapHalves: boolean;
  stored: StoredUpdate;
  /** Rank of ΔW as it is stored; for a difference, what a matrix of its shape can have. */
  rank: number;
  /** alpha / rank, or 1 without an alpha: ΔW is multiplied by it. */
  factor: number;
  /** For people; absent when the file has none. */
  alpha?: number;
}

/** A key of the file that changes nothing, and why. */
export interface UnusedKey {
  key: string;
  reason: string;
}

/** An adapter file matched with a model. */
export interface Adapter {
  /** For messages: the file. */
  readonly label: string;
  readonly updates: readonly AdapterUpdate[];
  readonly unused: readonly UnusedKey[];
  /** Key styles found, e.g. `kohya`. */
  readonly styles: readonly string[];
  /** The file's own header entries. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Bytes of all tensors of the file. */
  readonly bytes: number;
  readonly source: WeightSource;
  close(): Promise<void>;
}

/** Shapes of a model's tensors, by part and BFL name. */
export type ModelTensors = Record<AdapterPart, ReadonlyMap<string, Pick<SourceTensor, 'shape'>>>;
