// Reference cases: a component, its inputs, and what the reference implementation computed; and how both are compared.
// The same cases serve the CPU oracle (are the models right?) and every GPU tier (are the kernels right?).

import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import type { Component } from '../../kernels-codegen/src/compile.ts';
import { floatTensor, type TestTensor } from './safetensors.ts';

export interface ReferenceCase {
  name: string;
  /** Folder of the weights. */
  fixture: string;
  request: Component;
  inputs: Record<string, Float32Array>;
  expected: Expectation[];
}

/** One stored value of the reference. */
export interface Expectation {
  /** The fixture's name of it. */
  reference: string;
  /** Our port, or the label of the node that computes it. */
  label: string;
  /** `[rows, cols]` row-major. */
  values: Float32Array;
  /** Our values in the reference's order, where ours are a larger or otherwise ordered matrix. */
  pick?: (ours: Float32Array) => Float32Array;
}

const PORTS = new Set(['velocity', 'modulation', 'hidden', 'latents', 'tensor']);

/** Labels that must become output ports for the comparison. */
export const tapsOf = (c: ReferenceCase): string[] => [
  ...new Set(c.expected.map(({ label }) => label).filter((label) => !PORTS.has(label))),
];

/** Compares every expected value, in order, so that the first failing label names the first wrong layer. */
export function compareCase(
  c: ReferenceCase,
  actual: (label: string) => ArrayLike<number> | undefined,
  tolerance: number,
): void {
  for (const { reference, label, values, pick } of c.expected) {
    const ours = Float32Array.from(actual(label)!);
    // Buffers end on multiples of 16 bytes: what lies beyond the last value is not part of it.
    const { relative } = errorOf(pick ? pick(ours) : ours.subarray(0, values.length), values);
    expect(relative, `${c.name}: ${label} (${reference})`).toBeLessThan(tolerance);
  }
}

const root = new URL('../fixtures/', import.meta.url);
export const fixturePath = (name: string): URL => new URL(`${name}`, root);
export const fixtureMeta = (fixture: string) => JSON.parse(readFileSync(fixturePath(`${fixture}/meta.json`), 'utf8'));

/** Tensor `name` of sample `index` along its first axis. */
export function sample(tensors: Map<string, TestTensor>, name: string, index: number): Float32Array {
  const data = floatTensor(tensors, name);
  const batch = tensors.get(name)!.shape[0]!;
  const size = data.length / batch;
  return data.slice(index * size, (index + 1) * size);
}

/** The rows `ids` of a table. */
export function rowsOf(table: Float32Array, width: number, ids: ArrayLike<number>): Float32Array {
  const out = new Float32Array(ids.length * width);
  Array.from(ids).forEach((id, i) => {
    out.set(table.subarray(id * width, (id + 1) * width), i * width);
  });
  return out;
}

/** Picks columns `[first, first + count)` of a matrix of `width` columns. */
export const columns = (width: number, first: number, count: number) => (ours: Float32Array) =>
  Float32Array.from({ length: Math.floor(ours.length / width) * count }, (_, i) => {
    return ours[Math.floor(i / count) * width + first + (i % count)]!;
  });

/** √(Σ(a−b)² / Σb²), and the worst element. */
export function errorOf(actual: ArrayLike<number>, expected: ArrayLike<number>): { relative: number; worst: number } {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, expected ${expected.length}`);
  let [difference, norm, worst] = [0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const d = actual[i]! - expected[i]!;
    if (Number.isNaN(d)) return { relative: Number.NaN, worst: Number.NaN };
    difference += d * d;
    norm += expected[i]! ** 2;
    worst = Math.max(worst, Math.abs(d));
  }
  return { relative: Math.sqrt(difference / norm), worst };
}
