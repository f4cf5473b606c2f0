// One velocity of the reference transformer from our own inputs: embeddings exact and rounded as BFL's pipeline does, our rotary table.
// The fixture has the output for both kinds of conditioning; they are far apart, so neither can pass for the other.
import { afterAll, describe, expect, it } from 'vitest';
import { compile } from '../../kernels-codegen/src/compile.ts';
import type { FluxSpec } from '../../kernels-codegen/src/models/flux.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { Executable, fileBytes, openDevice, openSafetensors, WeightStore } from '../../runtime/src/index.ts';
import { sinusoids } from '../../sdk/src/kontext/conditioning.ts';
import { ropeTable } from '../../sdk/src/kontext/rope.ts';
import { errorOf, fixturePath } from '../support/cases.ts';
import { denoiseCase } from '../support/cases-transformer.ts';
import { readSafetensors } from '../support/safetensors.ts';

const FIXTURE = 'transformer-bfl-small';
const gpu = await openDevice();
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

const io = readSafetensors(fixturePath(`${FIXTURE}/io.safetensors`).pathname);
/** One sample of a batched tensor. */
function sample(name: string, index: number): Float32Array {
  const { shape, data } = io.get(name)!;
  const values = data.length / shape[0]!;
  return (data as Float32Array).slice(index * values, (index + 1) * values);
}

describe.each([0, 1])('sample %i', (index) => {
  it.each([
    // The reference's own angles are float32: off by 1e-4 where ours are not.
    ['exact', 'out.output', 5e-5],
    ['bfl', 'out.output_bf16_conditioning', 1e-5],
  ] as const)('with %s conditioning', { timeout: 600_000 }, async (conditioning, output, bound) => {
    const { request, inputs } = denoiseCase(FIXTURE, 'io.safetensors', index);
    if (request.component !== 'denoise') throw new Error('not a denoise case');
    const spec: FluxSpec = request.spec;
    const store = new WeightStore(
      gpu,
      await openSafetensors(await fileBytes(fixturePath(`${FIXTURE}/weights.safetensors`).pathname)),
    );
    const target = targetFor(gpu.report, 'f32');
    const modulation = await Executable.create(gpu, compile({ component: 'modulation', spec, steps: 1, target }), {
      weights: store,
    });
    modulation.write('timesteps', sinusoids('timesteps', sample('in.timesteps', index), conditioning));
    modulation.write('guidance', sinusoids('guidance', sample('in.guidance', index), conditioning));
    modulation.write('pooled', sample('in.y', index));
    await modulation.run();
    const denoise = await Executable.create(gpu, compile({ ...request, target }), {
      weights: store,
      ports: { modulation: modulation.port('modulation') },
    });
    for (const name of ['latents', 'text', 'references']) denoise.write(name, inputs[name]!);
    const { axes, theta } = spec;
    denoise.write('rope', ropeTable(axes, theta, request.textTokens, request.image, request.references));
    await denoise.run();
    const velocity = await denoise.read('velocity');
    const tokens = request.image.height * request.image.width;
    const of = (name: string) => sample(name, index).slice(0, tokens * spec.outChannels);
    // Outputs have a standard deviation of 1; float32 sums in another order differ by 3e-6.
    expect(errorOf(velocity.subarray(0, tokens * spec.outChannels), of(output)).relative).toBeLessThan(bound);
    expect(errorOf(of('out.output'), of('out.output_bf16_conditioning')).relative).toBeGreaterThan(1e-3);
    await denoise.dispose();
    await modulation.dispose();
    await store.source.close();
  });
});
