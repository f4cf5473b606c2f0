// Adapter fixtures: files of every key style for the small transformer, and how to run it with them.
import { type CompileRequest, type Component, compile } from '../../kernels-codegen/src/compile.ts';
import type { AdapterRoom } from '../../kernels-codegen/src/graph/room.ts';
import type { FluxSpec } from '../../kernels-codegen/src/models/flux.ts';
import type { TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import {
  bflNaming,
  Executable,
  fileBytes,
  type KontextDevice,
  memoryBytes,
  openSafetensors,
  WeightStore,
} from '../../runtime/src/index.ts';
import type { Program } from '../../runtime/src/program/types.ts';
import { RoomContents } from '../../runtime/src/weights/adapters/fill.ts';
import { MergedWeights } from '../../runtime/src/weights/adapters/merge.ts';
import { openAdapter } from '../../runtime/src/weights/adapters/open.ts';
import { type AdapterUse, type PartPlan, planAdapters } from '../../runtime/src/weights/adapters/plan.ts';
import type { Adapter, ModelTensors } from '../../runtime/src/weights/adapters/types.ts';
import type { WeightSource } from '../../runtime/src/weights/source.ts';
import { sinusoids } from '../../sdk/src/kontext/conditioning.ts';
import { ropeTable } from '../../sdk/src/kontext/rope.ts';
import { fixturePath } from './cases.ts';
import { fluxSpec } from './cases-transformer.ts';
import { readSafetensors, type TestTensor } from './safetensors.ts';

export const adapterFile = (name: string): string => fixturePath(`adapters/${name}`).pathname;

const empty = new Map<string, { shape: number[] }>();

export async function smallTransformer(): Promise<WeightSource> {
  return bflNaming(
    await openSafetensors(await fileBytes(fixturePath('transformer-bfl-small/weights.safetensors').pathname)),
  );
}

export const transformerOnly = (source: WeightSource): ModelTensors => ({
  transformer: source.tensors,
  clip: empty,
  t5: empty,
});

/** An adapter file of the fixtures, or its bytes. */
export async function testAdapter(file: string | Uint8Array, model: ModelTensors): Promise<Adapter> {
  const bytes =
    typeof file === 'string' ? await fileBytes(adapterFile(file)) : memoryBytes(file, 'adapter.safetensors');
  const source = await openSafetensors(bytes);
  return openAdapter(source, model);
}

export const used = (adapter: Adapter, scale: number): AdapterUse => ({ adapter, scaleOf: () => scale });

/** A stored evaluation of the small transformer. */
export interface AdapterCase {
  tensors: Map<string, TestTensor>;
  index: number;
  textTokens: number;
  image: { height: number; width: number };
  reference: { height: number; width: number };
}

export const formatsCase = (): AdapterCase => ({
  tensors: readSafetensors(adapterFile('formats/io.safetensors')),
  index: 0,
  textTokens: 8,
  image: { height: 3, width: 4 },
  reference: { height: 4, width: 2 },
});

export const loraCase = (index: number): AdapterCase => ({
  tensors: readSafetensors(adapterFile('lora/io.safetensors')),
  index,
  textTokens: 9,
  image: { height: 3, width: 5 },
  reference: { height: 4, width: 3 },
});

/** The target's rows of a stored output. */
export function targetOutput(c: AdapterCase, name: string): Float32Array {
  const all = sampleOf(c, `out.${name}`);
  return all.slice(0, c.image.height * c.image.width * 64);
}

function sampleOf(c: AdapterCase, name: string): Float32Array {
  const tensor = c.tensors.get(name);
  if (!tensor) throw new Error(`the fixture has no ${name}`);
  const size = tensor.data.length / tensor.shape[0]!;
  return (tensor.data as Float32Array).slice(c.index * size, (c.index + 1) * size);
}

/** Runs the small transformer with adapters; programs and weights are kept between runs. */
export class AdapterRunner {
  readonly store: WeightStore;
  private readonly bound = new Map<string, { executable: Executable; contents: RoomContents }>();

  constructor(
    readonly gpu: KontextDevice,
    readonly source: WeightSource,
    private readonly target: TargetProfile,
    private readonly how: { spec?: FluxSpec; weights?: Pick<CompileRequest, 'quantization' | 'stored'> } = {},
  ) {
    this.store = new WeightStore(gpu, source);
  }

  /** The velocity of the target's tokens. @param room of both programs; none when everything is merged */
  async run(c: AdapterCase, uses: readonly AdapterUse[], room: AdapterRoom | undefined): Promise<Float32Array> {
    const plan = planAdapters(uses, room === undefined).get('transformer');
    const merged = plan && plan.merged.size > 0 ? new MergedWeights(this.store, plan.merged) : undefined;
    const { spec = fluxSpec('transformer-bfl-small') } = this.how;
    const one = (name: string): number[] => [...sampleOf(c, name)];
    const modulation = await this.execute(
      { component: 'modulation', spec, steps: 1, ...(room && { room }) },
      plan?.beside,
      merged,
      {
        timesteps: sinusoids('timesteps', one('in.timesteps'), 'exact'),
        guidance: sinusoids('guidance', one('in.guidance'), 'exact'),
        pooled: sampleOf(c, 'in.y'),
      },
    );
    const img = sampleOf(c, 'in.img');
    const target = c.image.height * c.image.width * 64;
    const { textTokens, image } = c;
    const shape = { textTokens, image, references: [c.reference] };
    const velocity = await this.execute(
      { component: 'denoise', spec, ...shape, ...(room && { room }) },
      plan?.beside,
      merged,
      {
        modulation,
        latents: img.slice(0, target),
        references: img.slice(target),
        text: sampleOf(c, 'in.txt'),
        rope: ropeTable(spec.axes, spec.theta, textTokens, image, [c.reference]),
      },
    );
    await merged?.evict();
    return velocity;
  }

  /** Programs bound by {@link run} without changed weights. */
  get programs(): Program[] {
    return [...this.bound.values()].map(({ executable }) => executable.program);
  }

  async dispose(): Promise<void> {
    for (const { executable } of this.bound.values()) await executable.dispose();
    this.bound.clear();
    await this.store.evict();
  }

  private async execute(
    component: Component,
    beside: PartPlan['beside'] | undefined,
    merged: MergedWeights | undefined,
    inputs: Record<string, Float32Array>,
  ): Promise<Float32Array> {
    const request: CompileRequest = { ...component, target: this.target, ...this.how.weights };
    const key = JSON.stringify({ ...request, target: undefined });
    let entry = merged ? undefined : this.bound.get(key);
    if (!entry) {
      const executable = await Executable.create(this.gpu, compile(request), { weights: merged ?? this.store });
      entry = { executable, contents: new RoomContents(executable) };
      if (!merged) this.bound.set(key, entry);
    }
    const { executable, contents } = entry;
    try {
      // Each program has the layers of its half; together they have all, or the result is wrong.
      const mine = [...(beside ?? [])].filter(([module]) => Object.hasOwn(contents.ranks ?? {}, module));
      await contents.fill(new Map(mine));
      for (const [port, data] of Object.entries(inputs)) executable.write(port, data);
      await executable.run();
      return await executable.read(request.component === 'modulation' ? 'modulation' : 'velocity');
    } finally {
      if (merged) await executable.dispose();
    }
  }
}
