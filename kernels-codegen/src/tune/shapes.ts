// What there is to measure: the products of programs, one for each shape, with kernels for any schedule of theirs.
// Epilogues are left out: they are a few operations a result, the same in every schedule.

import { type CompileRequest, compile } from '../compile.ts';
import { acc } from '../expr/expr.ts';
import {
  type AttentionSpec,
  attention,
  attentionCandidates,
  attentionShapeKey,
  chooseAttentionSchedule,
} from '../kernels/attention/index.ts';
import {
  type Conv2dSpec,
  chooseConv2dSchedule,
  conv2d,
  conv2dCandidates,
  conv2dShapeKey,
} from '../kernels/conv2d/index.ts';
import type { KernelSource, MatrixView } from '../kernels/kernel.ts';
import {
  chooseMatmulSchedule,
  type MatmulSpec,
  matmul,
  matmulCandidates,
  matmulShapeKey,
} from '../kernels/matmul/index.ts';
import type { TargetProfile } from '../targets/types.ts';
import { sameSchedule, type TunedFamily } from './tuned.ts';

/** Of one family; `S` are its schedules. */
interface Shape<F extends TunedFamily, Spec> {
  family: F;
  key: string;
  spec: Spec;
  /** Floating-point operations of one dispatch. */
  flops: number;
  /** Dispatches of this shape in all programs. */
  dispatches: number;
}

export type TunableShape =
  | Shape<'matmul', MatmulSpec>
  | Shape<'conv2d', Conv2dSpec>
  | Shape<'attention', AttentionSpec>;

/** The shapes of some programs for one target, those with the most work first. */
export function tunableShapes(requests: readonly CompileRequest[]): TunableShape[] {
  const shapes = new Map<string, TunableShape>();
  for (const request of requests) {
    const { target } = request;
    const add = (shape: Omit<TunableShape, 'dispatches'>): void => {
      const known = shapes.get(`${shape.family} ${shape.key}`);
      if (known) known.dispatches++;
      else shapes.set(`${shape.family} ${shape.key}`, { ...shape, dispatches: 1 } as TunableShape);
    };
    compile(request, ({ family, spec: full }, { flops }) => {
      if (family === 'matmul') {
        const { beside: _, heads: __, ...rest } = full;
        const spec = { ...rest, epilogue: { expr: acc, operands: [] } };
        add({ family, key: matmulShapeKey(spec, target), spec, flops });
      } else if (family === 'conv2d') {
        const spec = { ...full, epilogue: { expr: acc, operands: [] } };
        add({ family, key: conv2dShapeKey(spec, target), spec, flops });
      } else add({ family, key: attentionShapeKey(full), spec: full, flops });
    });
  }
  return [...shapes.values()].sort((a, b) => b.flops * b.dispatches - a.flops * a.dispatches);
}

/** A kernel that might serve a shape. */
export interface Candidate {
  schedule: Readonly<Record<string, unknown>>;
  /** Its text is made when it is asked for. */
  kernel(): KernelSource;
}

/** The estimate's choice, and every other schedule that the target can hold. */
export function candidatesOf(shape: TunableShape, { tuned: _, ...target }: TargetProfile): [Candidate, ...Candidate[]] {
  switch (shape.family) {
    case 'matmul':
      return listed(chooseMatmulSchedule(shape.spec, target), matmulCandidates(shape.spec, target), (s) =>
        matmul(shape.spec, target, s),
      );
    case 'conv2d':
      return listed(chooseConv2dSchedule(shape.spec, target), conv2dCandidates(shape.spec, target), (s) =>
        conv2d(shape.spec, target, s),
      );
    case 'attention':
      return listed(chooseAttentionSchedule(shape.spec, target), attentionCandidates(shape.spec, target), (s) =>
        attention(shape.spec, target, s),
      );
    default:
      throw shape satisfies never;
  }
}

function listed<S extends object>(
  chosen: S,
  others: readonly S[],
  make: (schedule: S) => KernelSource,
): [Candidate, ...Candidate[]] {
  const candidate = (s: S): Candidate => ({ schedule: s as Record<string, unknown>, kernel: () => make(s) });
  return [candidate(chosen), ...others.filter((s) => !sameSchedule(s, chosen)).map(candidate)];
}

/** Rows of the result that the plain kernel computes. */
const PLAIN_ROWS = 64;

/** The first rows of the result computed plainly: a thread each few values, no workgroup memory shared, no matrices. */
export function plainKernel(shape: TunableShape, { tuned: _, ...target }: TargetProfile): KernelSource {
  const direct = { variant: 'direct', threads: 32, rows: 1 } as const;
  switch (shape.family) {
    case 'matmul': {
      const { spec } = shape;
      const m = Math.min(spec.m, PLAIN_ROWS);
      const segments = spec.segments.map(({ a }) => ({ a: { ...a, rows: m } }));
      return matmul({ ...spec, m, segments, out: { ...spec.out, rows: m } }, target, direct);
    }
    case 'conv2d': {
      const { spec } = shape;
      const outHeight = Math.min(spec.outHeight, Math.ceil(PLAIN_ROWS / spec.outWidth));
      // A row more than the taps reach, so that the cut is no edge.
      const reached = Math.ceil((outHeight * spec.stride + spec.kernel) / spec.upsample) + 1;
      const inHeight = Math.min(spec.inHeight, reached);
      const x = { ...spec.x, rows: inHeight * spec.inWidth };
      const out = { ...spec.out, rows: outHeight * spec.outWidth };
      return conv2d({ ...spec, outHeight, inHeight, x, out }, target, direct);
    }
    case 'attention': {
      const { spec } = shape;
      // Masks and biases count from the first query to the last: such shapes are small, and computed whole.
      const rows = spec.causal || spec.bias ? spec.q.rows : Math.min(spec.q.rows, PLAIN_ROWS);
      const threads = Math.min(32, Math.floor(target.limits.maxComputeWorkgroupStorageSize / (4 * spec.size + 16)));
      const cut = (view: MatrixView): MatrixView => ({ ...view, rows });
      const plain = { variant: 'direct', threads, queries: 1, keys: 2 } as const;
      return attention({ ...spec, q: cut(spec.q), out: cut(spec.out) }, target, plain);
    }
    default:
      throw shape satisfies never;
  }
}

/** What a kernel of a shape is given, in the order of its bindings; the last is the output. */
export type Operand =
  | { kind: 'view'; view: MatrixView }
  | { kind: 'weight'; format: MatmulSpec['weight']['format']; rows: number; cols: number };

export function operandsOf(shape: TunableShape): Operand[] {
  const view = (v: MatrixView): Operand => ({ kind: 'view', view: v });
  switch (shape.family) {
    case 'matmul': {
      const { segments, weight, out } = shape.spec;
      return [...segments.map(({ a }) => view(a)), { kind: 'weight', ...weight }, view(out)];
    }
    case 'conv2d': {
      const { x, weight, prologue, out } = shape.spec;
      return [view(x), { kind: 'weight', ...weight }, ...(prologue ? [view(prologue.view)] : []), view(out)];
    }
    case 'attention': {
      const { q, k, v, bias, out, heads } = shape.spec;
      const table = bias && {
        ...{ type: 'f32' as const, rows: 2 * bias.queries - 1, cols: heads },
        ...{ rowStride: bias.rowStride, offset: bias.offset },
      };
      return [view(q), view(k), view(v), ...(table ? [view(table)] : []), view(out)];
    }
    default:
      throw shape satisfies never;
  }
}

/** How far a correct result may lie from the plain one, relative to its size: sums in another order, and f16 where products or results are. */
export function toleranceOf(shape: TunableShape): number {
  const views = operandsOf(shape).flatMap((o) => (o.kind === 'view' ? [o.view.type] : []));
  return views.includes('f16') || shape.key.endsWith('f16') ? 2e-3 : 2e-5;
}
