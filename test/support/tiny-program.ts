// Small hand-written programs for runtime tests, so that they need no compiler.
// y = (x · scale + w) twice through a slab: input port → slab → output port, one weight, one constant.

import { PROGRAM_SCHEMA, type Program, type WeightRequest } from '../../runtime/src/program/types.ts';

const AXPY = `
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < arrayLength(&x)) { y[id.x] = x[id.x] * k[0] + w[id.x]; }
}`;

/** `y = (x·k + w)·k + w` for `n` floats, n a multiple of 64; `k` is 3. */
export function affineTwice(n: number, weight: WeightRequest = f32Weight('w', n)): Program {
  const bytes = n * 4;
  const step = (
    label: string,
    from: 'port' | 'slab',
    to: 'port' | 'slab',
    out: number,
  ): Program['dispatches'][number] => ({
    label,
    kernel: 0,
    bindings: [
      [from, 0, 0, bytes],
      ['weight', 0, 0, bytes],
      ['constant', 0, 0, 4],
      [to, out, 0, bytes],
    ],
    workgroups: [n / 64, 1, 1],
    flops: 2 * n,
    bytes: 3 * bytes,
  });
  return {
    ...emptyProgram(`affine ${n}`),
    ports: [
      { name: 'x', direction: 'in', type: 'f32', shape: [n], bytes },
      { name: 'y', direction: 'out', type: 'f32', shape: [n], bytes },
    ],
    slabs: [bytes],
    weights: [weight],
    constants: [{ type: 'f32', data: Buffer.from(new Float32Array([3]).buffer).toString('base64'), bytes: 4 }],
    kernels: [{ label: 'axpy', wgsl: AXPY, bindings: ['read', 'read', 'read', 'read_write'] }],
    dispatches: [step('first.affine', 'port', 'slab', 0), step('second.affine', 'slab', 'port', 1)],
  };
}

/** `y` becomes the sum of `count` weights `layers.i.w` of `n` floats, one dispatch a weight: for streaming. */
export function sumOfWeights(n: number, count: number): Program {
  const bytes = n * 4;
  return {
    ...emptyProgram(`sum of ${count}`),
    ports: [{ name: 'y', direction: 'inout', type: 'f32', shape: [n], bytes }],
    weights: Array.from({ length: count }, (_, i) => f32Weight(`layers.${i}.w`, n)),
    kernels: [
      {
        label: 'accumulate',
        wgsl: `
@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < arrayLength(&w)) { y[id.x] += w[id.x]; }
}`,
        bindings: ['read', 'read_write'],
      },
    ],
    dispatches: Array.from({ length: count }, (_, i) => ({
      label: `layers.${i}.add`,
      kernel: 0,
      bindings: [
        ['weight', i, 0, bytes],
        ['port', 0, 0, bytes],
      ],
      workgroups: [n / 64, 1, 1],
      flops: n,
      bytes: 3 * bytes,
    })),
  };
}

/**
 * `count` dispatches on one buffer, each `loops` multiply-adds an invocation, 256 × `groups` invocations. `flops` may claim
 * more work than there is, so that slicing can be seen without waiting for it.
 */
export function busyProgram(count: number, loops: number, groups = 64, flops = 2 * groups * 256 * loops): Program {
  const n = groups * 256;
  return {
    ...emptyProgram(`busy ${count}`),
    ports: [{ name: 'y', direction: 'inout', type: 'f32', shape: [n], bytes: n * 4 }],
    kernels: [
      {
        label: 'busy',
        wgsl: `
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var v = y[id.x];
  for (var i = 0u; i < ${loops}u; i++) { v = v * 0.999 + 0.001; }
  y[id.x] = v;
}`,
        bindings: ['read_write'],
      },
    ],
    dispatches: Array.from({ length: count }, (_, i) => ({
      label: `busy.${i}`,
      kernel: 0,
      bindings: [['port', 0, 0, n * 4]],
      workgroups: [groups, 1, 1],
      flops,
      bytes: 8 * n,
    })),
  };
}

export function f32Weight(name: string, n: number): WeightRequest {
  return { name, format: 'f32', shape: [1, n], layout: 'matrix', bytes: n * 4 };
}

function emptyProgram(label: string): Program {
  return {
    schema: PROGRAM_SCHEMA,
    component: 'test',
    label,
    requires: { features: [], limits: {} },
    ports: [],
    slabs: [],
    weights: [],
    constants: [],
    kernels: [],
    dispatches: [],
    facts: {},
  };
}
