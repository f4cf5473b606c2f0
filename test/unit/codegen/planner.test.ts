// The planner on random graphs: a program run in its planned memory, value by value, gives what the graph gives without any.
// Each node reads and writes the rectangles that placement and slabs assign, so a tensor overwritten while somebody still
// needs it, a wrong view or an update in place of a shared value changes the result. Seeds are in the titles.
import { describe, expect, it } from 'vitest';
import { optimize } from '../../../kernels-codegen/src/compile.ts';
import * as e from '../../../kernels-codegen/src/expr/expr.ts';
import { Builder } from '../../../kernels-codegen/src/graph/builder.ts';
import { evaluateGraph, type Values } from '../../../kernels-codegen/src/graph/evaluate.ts';
import { type Graph, type Node, printGraph, reads, type Tensor } from '../../../kernels-codegen/src/graph/graph.ts';
import { lower } from '../../../kernels-codegen/src/plan/lower.ts';
import { type Placement, place, type Storage } from '../../../kernels-codegen/src/plan/place.ts';
import { packSlabs, type SlabPlan } from '../../../kernels-codegen/src/plan/slabs.ts';
import { conflictsOf, scratchShape, storagesOf } from '../../../kernels-codegen/src/plan/storages.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { random } from '../../support/random.ts';

const SEEDS = Array.from({ length: 150 }, (_, seed) => seed);
const MAX_BYTES = 2 ** 31;

/** A graph of every kind of node that reads, writes, views or updates memory; sizes stay small for the float64 loops. */
function randomGraph(seed: number): Graph {
  const r = random(seed);
  const pick = <T>(list: readonly T[]): T => list[Math.floor(r() * list.length)]!;
  const g = new Builder();
  const state = g.state('state', pick([4, 6]), pick([8, 12]));
  const tensors: Tensor[] = [state, g.input('x', pick([4, 6]), pick([8, 12]))];
  let names = 0;
  const name = (): string => `n${names++}`;
  const alike = (t: Tensor, same: (other: Tensor) => boolean): Tensor => pick([t, ...tensors.filter(same)]);
  const steps: ((t: Tensor) => Tensor)[] = [
    (t) => g.linear(t, name(), pick([8, 12])),
    (t) => g.linear([t, alike(t, (o) => o.rows === t.rows)], name(), pick([8, 12])),
    (t) => g.map([t], e.geluTanh(e.operand(0)), name()),
    (t) =>
      g.add(
        t,
        alike(t, (o) => o.rows === t.rows && o.cols === t.cols),
        name(),
      ),
    (t) => g.map([t, g.vector(name(), t.cols)], e.mul(e.operand(0), e.operand(1)), name()),
    (t) => g.layerNorm(t, 1e-6, name()),
    (t) => g.rows(t, t.rows / 2, t.rows / 2),
    (t) => g.cols(t, 4, t.cols - 4),
    (t) => g.concatRows([t, alike(t, (o) => o.cols === t.cols)], name()),
    (t) => g.concatCols([alike(t, (o) => o.rows === t.rows), t], name()),
    (t) => {
      const width = 8;
      const qkv = g.linear(t, name(), 3 * width);
      const scales = { query: g.vector(name(), 4), key: g.vector(name(), 4) };
      const normed = g.headNorm(qkv, { heads: 2, size: 4, ...scales, label: name() });
      const [q, k, v] = [0, 1, 2].map((i) => g.cols(normed, i * width, width)) as [Tensor, Tensor, Tensor];
      return g.attention(q, k, v, { heads: 2, scale: 0.5, label: name() });
    },
    (t) => {
      const affine = g.groupNorm(t, name(), 4, 1e-6);
      return g.map([t, g.rows(affine, 0, 1), g.rows(affine, 1, 1)], scaleShift, name());
    },
  ];
  const fits = (t: Tensor): boolean => t.rows >= 4 && t.rows <= 48 && t.cols >= 8 && t.cols <= 48;
  const update = Math.floor(r() * 24);
  for (let count = 6 + Math.floor(r() * 18); count >= 0; count--) {
    // The port's new value may be ready while its old one is still read.
    if (count === Math.min(update, 5)) {
      const next = tensors.slice(1).find((t) => t.rows === state.rows && t.cols === state.cols) ?? state;
      g.update(state, g.map([state, next], e.add(e.operand(0), e.operand(1)), 'next state'));
    }
    const made = pick(steps)(pick([...tensors.slice(-5), state]));
    if (fits(made)) tensors.push(made);
  }
  const results = tensors.slice(2);
  g.output('last', results.at(-1) ?? tensors[1]!);
  if (r() < 0.7 && results.length > 1) g.output('middle', pick(results));
  return g.finish();
}

const scaleShift = e.add(e.mul(e.operand(0), e.operand(1)), e.operand(2));

/** Values of a checkpoint that has every name. */
function weight(name: string): Float64Array {
  const r = random([...name].reduce((hash, c) => Math.imul(hash, 31) + c.charCodeAt(0), 7));
  return Float64Array.from({ length: 48 * 2 * 48 }, () => r() - 0.5);
}

const portsOf = (graph: Graph): Record<string, Values> =>
  Object.fromEntries(
    graph.ports.flatMap(({ name, initial }) => {
      const r = random(name.length);
      return initial ? [[name, Float64Array.from({ length: initial.rows * initial.cols }, () => r() - 0.5)]] : [];
    }),
  );

/** Buffers in units of two bytes: an f16 value fills one, an f32 value two, of which the second must stay its own. */
class Memory {
  private readonly buffers = new Map<string, Float64Array>();

  constructor(
    private readonly placement: Placement,
    private readonly slabs: SlabPlan,
  ) {}

  write(t: Tensor, values: ArrayLike<number>): void {
    this.visit(t, (buffer, at, i) => {
      buffer[at] = values[i]!;
      if (t.type !== 'f16') buffer[at + 1] = SECOND_HALF;
    });
  }

  read(t: Tensor): Values {
    const values = new Float64Array(t.rows * t.cols);
    this.visit(t, (buffer, at, i) => {
      const whole = t.type === 'f16' || buffer[at + 1] === SECOND_HALF;
      values[i] = whole ? buffer[at]! : Number.NaN;
    });
    return values;
  }

  /** What a kernel leaves in its private memory. */
  spoil(storage: Storage): void {
    const { buffer, start } = this.bufferOf(storage);
    buffer.fill(Number.NaN, start, start + 2 * storage.rows * storage.cols);
  }

  private visit(t: Tensor, f: (buffer: Float64Array, at: number, i: number) => void): void {
    const { storage, row, col } = this.placement.homes.get(t)!;
    const { buffer, start } = this.bufferOf(storage);
    const size = storage.type === 'f16' ? 1 : 2;
    for (let i = 0; i < t.rows * t.cols; i++) {
      const element = (row + Math.floor(i / t.cols)) * storage.cols + col + (i % t.cols);
      f(buffer, start + element * size, i);
    }
  }

  private bufferOf(storage: Storage): { buffer: Float64Array; start: number } {
    const at = storage.port === undefined ? this.slabs.at.get(storage)! : undefined;
    const key = at ? `slab ${at.slab}` : `port ${storage.port}`;
    const bytes = at ? this.slabs.slabs[at.slab]! : storage.rows * storage.cols * 4;
    const buffer = this.buffers.get(key) ?? new Float64Array(bytes / 2).fill(Number.NaN);
    this.buffers.set(key, buffer);
    return { buffer, start: (at?.offset ?? 0) / 2 };
  }
}

const SECOND_HALF = 1e300;

/** One node on values from memory, by the graph's own evaluator. */
function step(node: Node, memory: Memory): Values {
  const ports: Record<string, Values> = {};
  const given = new Map<Tensor, Tensor>();
  const known = (t: Tensor): Tensor => {
    if (t.origin.kind !== 'node' && t.origin.kind !== 'port') return t;
    const port = `${t.id}`;
    ports[port] = memory.read(t);
    const tensor = given.get(t) ?? { ...t, origin: { kind: 'port' as const, port } };
    given.set(t, tensor);
    return tensor;
  };
  const alone: Node = { ...node, inputs: node.inputs.map(known), operands: node.operands.map(known) };
  const graph: Graph = { nodes: [alone], ports: [{ name: 'out', direction: 'out', final: node.output }] };
  return evaluateGraph(graph, { ports, weight }).out!;
}

describe.each(['nvidia-f32', 'nvidia'])('random graphs for %s', (name) => {
  const target = targetByName(name);

  it.each(SEEDS)('seed %i: running in the planned memory changes nothing', (seed) => {
    const ports = portsOf(randomGraph(seed));
    const want = evaluateGraph(randomGraph(seed), { ports, weight });
    const graph = optimize(randomGraph(seed), target);
    const placement = place(graph, scratchShape);
    const slabs = packSlabs(storagesOf(placement), conflictsOf(placement), MAX_BYTES);
    const memory = new Memory(placement, slabs);
    for (const { name: port, initial } of graph.ports) if (initial) memory.write(initial, ports[port]!);
    for (const node of placement.steps) {
      const values = step(node, memory);
      const scratch = placement.scratch.get(node);
      if (scratch) memory.spoil(scratch);
      memory.write(node.output, values);
    }
    for (const { name: port, final } of graph.ports) {
      if (!final) continue;
      const got = memory.read(final);
      const difference = got.reduce((most, v, i) => Math.max(most, Math.abs(v - want[port]![i]!)), 0);
      // Folded concatenations sum in another order: a few units in the last place of float64.
      expect(difference, `${port}\n${printGraph(graph)}`).toBeLessThan(1e-9);
    }
  });

  it.each(SEEDS)('seed %i: no dispatch reads and writes one slab, but for updates in place', (seed) => {
    const graph = optimize(randomGraph(seed), target);
    const options = { component: 'test', label: 'test', target, quantization: 'none', facts: {} } as const;
    const program = lower(graph, options);
    for (const { bindings, kernel, label } of program.dispatches) {
      const access = program.kernels[kernel]!.bindings;
      const written = bindings.filter((_, i) => access[i] === 'read_write');
      const read = bindings.filter((_, i) => access[i] === 'read');
      const buffer = ([kind, index]: (typeof bindings)[number]): string => `${kind} ${index}`;
      for (const w of written) expect(read.map(buffer), label).not.toContain(buffer(w));
    }
  });
});

it('the random graphs have what the planner is about', () => {
  const placements = SEEDS.map((seed) => place(optimize(randomGraph(seed), targetByName('nvidia')), scratchShape));
  const inPlace = placements.flatMap((p) => [...p.inPlace.values()]);
  expect(inPlace.filter((at) => at === 'input').length).toBeGreaterThan(50);
  expect(inPlace.filter((at) => at !== 'input').length).toBeGreaterThan(50);
  expect(placements.flatMap((p) => [...p.scratch.keys()]).length).toBeGreaterThan(50);
  const steps = placements.flatMap((p) => p.steps);
  expect(steps.filter((n) => n.label.startsWith('copy')).length).toBeGreaterThan(20);
  expect(steps.flatMap(reads).filter((t) => t.type === 'f16').length).toBeGreaterThan(100);
});
