// Room for adapters in programs: what it adds, what it costs at the real model's shapes, and that without it nothing changes.
import { describe, expect, it } from 'vitest';
import { buildGraph, type CompileRequest, compile, optimize } from '../../../kernels-codegen/src/compile.ts';
import { evaluateGraph } from '../../../kernels-codegen/src/graph/evaluate.ts';
import type { AdapterRoom } from '../../../kernels-codegen/src/graph/room.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { TARGETS } from '../../../kernels-codegen/src/targets/profiles.ts';
import { Pace } from '../../../runtime/src/execute/pace.ts';
import { adapterRooms } from '../../../runtime/src/program/adapter-rooms.ts';
import type { Program } from '../../../runtime/src/program/types.ts';

const spec = FLUX1_KONTEXT_DEV.transformer;
const grid = { height: 64, width: 64 };
const target = (name: string) => TARGETS.find((t) => t.name === name)!;
const denoise = (name: string, room?: AdapterRoom): Program =>
  compile({
    component: 'denoise',
    spec,
    textTokens: 512,
    image: grid,
    references: [grid],
    target: target(name),
    quantization: 'q8',
    ...(room === undefined ? {} : { room }),
  });
const rooms = (program: Program) => adapterRooms(program);
const matmuls = (program: Program) =>
  program.dispatches.filter(({ kernel }) => program.kernels[kernel]!.label.startsWith('matmul')).length;

describe('room for adapters', () => {
  it.each(['baseline', 'apple-m', 'nvidia', 'nvidia-matrix'])(
    '%s: rank 16 on every linear adds one dispatch a linear and a few percent of work',
    (name) => {
      const [without, room] = [denoise(name), denoise(name, 16)];
      expect(rooms(without)).toEqual([]);
      // Every linear of blocks and embedders; the references share img_in.
      expect(rooms(room)).toHaveLength(19 * 8 + 38 * 2 + 3);
      const added = room.dispatches.length - without.dispatches.length;
      expect(added).toBe(rooms(room).length + 1);
      expect(added).toBeLessThanOrEqual(matmuls(without));
      const pace = new Pace();
      const predicted = (p: Program) => p.dispatches.reduce((sum, dispatch) => sum + pace.predict(dispatch), 0);
      expect(predicted(room) / predicted(without)).toBeLessThan(1.08);
    },
  );

  it('gives stacked layers room for each part, and only named layers a rank of their own', () => {
    const uniform = new Map(rooms(denoise('nvidia', 8)).map((r) => [r.module, r]));
    expect(uniform.get('double_blocks.0.img_attn.qkv')!.rank).toBe(24);
    expect(uniform.get('double_blocks.0.img_attn.proj')!.rank).toBe(8);
    const linear1 = uniform.get('single_blocks.0.linear1')!;
    expect(linear1).toMatchObject({ rank: 32, cols: 3072 });
    expect(linear1.up.map(({ rows }) => rows)).toEqual([
      [0, 9216],
      [9216, 21504],
    ]);
    const named = denoise('nvidia', { 'double_blocks.3.txt_mlp.2': 8, 'no such layer': 16 });
    expect(rooms(named).map(({ module, rank }) => [module, rank])).toEqual([['double_blocks.3.txt_mlp.2', 8]]);
  });

  it.each(['baseline', 'nvidia'])(
    '%s: where no layer gets any, the program is the plain one, byte for byte',
    (name) => {
      const { clip, t5, transformer } = FLUX1_KONTEXT_DEV;
      const requests: CompileRequest[] = [
        { component: 'clip', spec: clip, tokens: 77, target: target(name) },
        { component: 't5', spec: t5, tokens: 512, target: target(name) },
        { component: 'modulation', spec: transformer, steps: 28, target: target(name) },
      ];
      for (const request of requests) {
        const none = { ...request, room: { 'no such layer': 8 } } as CompileRequest;
        expect(JSON.stringify(compile(none)), request.component).toBe(JSON.stringify(compile(request)));
      }
      expect(JSON.stringify(denoise(name, { 'no such layer': 8 }))).toBe(JSON.stringify(denoise(name)));
    },
  );

  it('stores factors as the tier stores activations, and names ports that exist', () => {
    for (const [name, type] of [
      ['baseline', 'f32'],
      ['nvidia', 'f16'],
    ] as const) {
      const program = denoise(name, { img_in: 8 });
      const ports = new Map(program.ports.map((port) => [port.name, port]));
      const [room] = rooms(program);
      expect(ports.get(room!.down)).toMatchObject({ type, shape: [8, 64], bytes: 8 * 64 * (type === 'f16' ? 2 : 4) });
      expect(ports.get(room!.up[0]!.port)).toMatchObject({ type, shape: [3072, 8] });
      expect(ports.get(room!.scale)).toMatchObject({ type: 'f32', shape: [1, 8] });
    }
  });

  it('refuses ranks it has no layout for', () => {
    for (const rank of [0, 4, 12, -8, 8.5, Number.NaN]) {
      expect(() => denoise('nvidia', rank), String(rank)).toThrow(/multiple of 8/);
      expect(() => denoise('nvidia', { img_in: rank }), String(rank)).toThrow(/multiple of 8/);
    }
  });

  it('computes y = x·Wᵀ + (scale ∘ x·downᵀ)·upᵀ, before and after the passes', () => {
    const request: CompileRequest = {
      component: 'modulation',
      spec: { ...spec, hidden: 8, heads: 1, doubleBlocks: 0, singleBlocks: 0, pooledWidth: 6, guidance: false },
      steps: 2,
      room: { 'final_layer.adaLN_modulation.1': 8 },
      target: target('baseline'),
    };
    const value = (seed: number) => (_: unknown, i: number) => Math.sin(seed + i * 1.7) / 3;
    const fill = (length: number, seed: number) => Float64Array.from({ length }, value(seed));
    const module = 'final_layer.adaLN_modulation.1';
    const ports = {
      timesteps: fill(512, 1),
      pooled: fill(6, 2),
      [`adapter down ${module}`]: fill(64, 3),
      [`adapter up ${module}`]: fill(128, 4),
      [`adapter scale ${module}`]: fill(8, 5),
    };
    const weight = (name: string) => fill(4096, name.length);
    const graph = buildGraph(request);
    const got = evaluateGraph(graph, { ports, weight }).modulation!;
    const zero = { ...ports, [`adapter scale ${module}`]: new Float64Array(8) };
    const base = evaluateGraph(buildGraph({ ...request, room: undefined } as CompileRequest), { ports, weight })
      .modulation!;
    expect(evaluateGraph(graph, { ports: zero, weight }).modulation).toEqual(base);
    const active = graph.nodes.find(({ label }) => label === 'silu(vec)')!.output;
    // The layer's input, by reading it out of the same evaluator.
    const x = evaluateGraph(
      { nodes: graph.nodes, ports: [{ name: 'x', direction: 'out', final: active }] },
      { ports, weight },
    ).x!;
    for (let row = 0; row < 2; row++) {
      for (let n = 0; n < 16; n++) {
        let sum = base[row * 16 + n]!;
        for (let r = 0; r < 8; r++) {
          let low = 0;
          for (let k = 0; k < 8; k++) low += x[row * 8 + k]! * ports[`adapter down ${module}`]![r * 8 + k]!;
          sum += low * ports[`adapter scale ${module}`]![r]! * ports[`adapter up ${module}`]![n * 8 + r]!;
        }
        expect(got[row * 16 + n]).toBeCloseTo(sum, 10);
      }
    }
    expect(evaluateGraph(optimize(buildGraph(request), target('baseline')), { ports, weight }).modulation).toEqual(got);
  });
});
