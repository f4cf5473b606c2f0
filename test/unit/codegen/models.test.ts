// The models against the reference implementation, on the CPU in float64: before any kernel exists, is the mathematics right?
// The same graphs after the passes must give the same values: no pass may change what is computed.
import { describe, it } from 'vitest';
import { buildGraph, optimize } from '../../../kernels-codegen/src/compile.ts';
import { evaluateGraph } from '../../../kernels-codegen/src/graph/evaluate.ts';
import { tap } from '../../../kernels-codegen/src/graph/tap.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { compareCase, fixturePath, type ReferenceCase, tapsOf } from '../../support/cases.ts';
import { vaeCases } from '../../support/cases-autoencoder.ts';
import { clipCases, t5Cases } from '../../support/cases-text.ts';
import { denoiseCase, modulationCase } from '../../support/cases-transformer.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';

// The reference ran in float32; float64 differs from it by its rounding only (meta.json: below 4e-7 relative).
const TOLERANCE = 2e-6;

function run(c: ReferenceCase, passes: boolean): Record<string, Float64Array> {
  const weights = readSafetensors(fixturePath(`${c.fixture}/weights.safetensors`));
  const graph = tap(buildGraph(c.request), tapsOf(c));
  const ready = passes ? optimize(graph, targetByName('lavapipe')) : graph;
  return evaluateGraph(ready, { ports: c.inputs, weight: (name) => floatTensor(weights, name) });
}

const check = (c: ReferenceCase, actual: Record<string, Float64Array>): void =>
  compareCase(c, (label) => actual[label], TOLERANCE);

const transformers: [string, string, number][] = [
  ['transformer-bfl-small', 'io.safetensors', 1],
  ['transformer-bfl-small', 'io_t2i.safetensors', 0],
  ['transformer-bfl-noguidance', 'io.safetensors', 0],
];

describe.each([false, true])('models equal the reference (passes: %s)', (passes) => {
  it.each(transformers)('%s %s #%i', (fixture, file, index) => {
    const modulation = modulationCase(fixture, file, index);
    const rows = run(modulation, passes);
    check(modulation, rows);
    const denoise = denoiseCase(fixture, file, index);
    denoise.inputs.modulation = Float32Array.from(rows.modulation!);
    check(denoise, run(denoise, passes));
  });

  it.each([
    t5Cases('t5-masked')[0]!,
    t5Cases('t5-masked')[1]!,
    clipCases('clip-eos-legacy')[1]!,
    clipCases('clip-eos-id')[0]!,
  ])('$name', (c) => check(c, run(c, passes)));
});

// Convolutions in plain float64 loops take seconds: only after the passes, which contain everything before them.
describe('the autoencoder equals the reference', () => {
  it.each(vaeCases('vae-bfl').filter((c) => /24x16 (en|de)code( sampled)?$/.test(c.name)))('$name', (c) =>
    check(c, run(c, true)),
  );
});
