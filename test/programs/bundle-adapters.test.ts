// Bundles with room for adapters: the program with enough of it, or the exact reason; without adapters the plain one.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeBundle } from '../../kernels-codegen/src/bundle/write.ts';
import { compile } from '../../kernels-codegen/src/compile.ts';
import type { AdapterRoom } from '../../kernels-codegen/src/graph/room.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import { adapterRooms } from '../../runtime/src/program/adapter-rooms.ts';
import {
  justInTime,
  type ModelSpecs,
  type ProgramProvider,
  type ProgramRequest,
} from '../../sdk/src/kontext/programs.ts';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { bundlePrograms } from '../../sdk/src/programs/bundle.ts';
import { shapesFor } from '../../sdk/src/programs/shapes.ts';

const target = targetByName('swiftshader');
const size = { width: 64, height: 64 };
const wanted = { sizes: [size], references: [], steps: [2], textTokens: 32 };

let model: Model;
let specs: ModelSpecs;
let programs: ProgramProvider;
let files: Map<string, string>;
beforeAll(async () => {
  model = await openModel(demoModel());
  specs = await justInTime().specs(model);
  const request = { model: 'demo', specs, targets: [target], quantizations: ['none'] } as const;
  // A rank of 12 is rounded up to 16.
  files = await writeBundle({ ...request, shapes: shapesFor({ ...wanted, loraRank: 12 }) });
  programs = bundlePrograms({
    label: 'The bundle under test',
    read: async (path) => JSON.parse(files.get(path) ?? '') as unknown,
  });
  await programs.specs(model);
});
afterAll(() => model.close());

const denoise = (room?: AdapterRoom): ProgramRequest => ({
  component: 'denoise',
  spec: specs.transformer,
  textTokens: 32,
  image: { width: 4, height: 4 },
  references: [],
  target,
  quantization: 'none',
  ...(room === undefined ? {} : { room }),
});

describe('a bundle with room for adapters', () => {
  it('gives the plain program without adapters, and the one with room for those that fit', async () => {
    expect(await programs.program(denoise())).toEqual(compile(denoise()));
    const roomy = await programs.program(denoise({ img_in: 16, 'single_blocks.0.linear1': 64 }));
    expect(roomy).toEqual(compile(denoise(16)));
    expect(adapterRooms(roomy).length).toBeGreaterThan(20);
  });

  it('refuses more rank than there is room for, and modules without any, with the numbers', async () => {
    await expect(programs.program(denoise({ img_in: 24 }))).rejects.toMatchObject({
      code: 'program-mismatch',
      message: expect.stringMatching(/adapters of rank 24 at img_in; it has 16.*--lora-rank/),
    });
    await expect(programs.program(denoise({ 'single_blocks.99.linear1': 8 }))).rejects.toThrow(/it has 0/);
  });

  it('without room for any refuses adapters and serves the rest', async () => {
    const request = { model: 'demo', specs, targets: [target], quantizations: ['none'] } as const;
    const plain = await writeBundle({ ...request, shapes: shapesFor(wanted) });
    const source = { label: 'plain', read: async (path: string) => JSON.parse(plain.get(path) ?? '') as unknown };
    const provider = bundlePrograms(source);
    await provider.specs(model);
    expect(await provider.program(denoise())).toEqual(compile(denoise()));
    await expect(provider.program(denoise({ img_in: 8 }))).rejects.toThrow(/rank 8 at img_in; it has 0/);
    // Plain programs are the same bytes in both bundles.
    const bodies = [...plain.keys()].filter((path) => path.startsWith('programs/'));
    expect(bodies.every((path) => files.get(path) === plain.get(path))).toBe(true);
  });
});
