// Nothing the reference implementation stored goes uncompared by accident: each value is compared on the GPU by
// test/parity/components.test.ts, or here because the host computes it, or named below with the reason why not.
import { describe, expect, it } from 'vitest';
import { relativeBuckets } from '../../../kernels-codegen/src/models/t5.ts';
import { sinusoids } from '../../../sdk/src/kontext/conditioning.ts';
import { ropeTable } from '../../../sdk/src/kontext/rope.ts';
import { poolingRow } from '../../../sdk/src/kontext/text.ts';
import { errorOf, fixtureMeta, fixturePath, type ReferenceCase, rowsOf, sample } from '../../support/cases.ts';
import { vaeCases } from '../../support/cases-autoencoder.ts';
import { clipCases, t5Cases } from '../../support/cases-text.ts';
import {
  denoiseCase,
  fluxShape,
  fluxSpec,
  modulationCase,
  ropeOf,
  TRANSFORMERS,
} from '../../support/cases-transformer.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';

const BY_HOST = 'the host computes it; compared below';
const BFL_HOST = { 'mid.pe': BY_HOST, 'mid.timestep_embedding': BY_HOST };
const GUIDANCE_HOST = { ...BFL_HOST, 'mid.guidance_embedding': BY_HOST };
const BFL_16_BIT = {
  'out.output_bf16_conditioning':
    'other inputs; compared by test/parity/conditioning.test.ts for transformer-bfl-small',
  'out.output_bf16_run': 'shows how large the noise of a bfloat16 run is; nothing to be equal to',
};
const DIFFUSERS_HOST = { 'mid.pos_embed.cos': BY_HOST, 'mid.pos_embed.sin': BY_HOST };
const T5_HOST = { 'relative.bucket': BY_HOST, 'relative.key_minus_query': BY_HOST };

/** By fixture and file: stored values that components.test.ts does not compare. */
const ELSEWHERE: [fixture: string, file: string, names: Record<string, string>][] = [
  ['transformer-bfl-small', 'io.safetensors', { ...GUIDANCE_HOST, ...BFL_16_BIT }],
  ['transformer-bfl-small', 'io_t2i.safetensors', { ...GUIDANCE_HOST, ...BFL_16_BIT }],
  ['transformer-bfl-headdim128', 'io.safetensors', { ...GUIDANCE_HOST, ...BFL_16_BIT }],
  ['transformer-bfl-noguidance', 'io.safetensors', { ...BFL_HOST, ...BFL_16_BIT }],
  ['transformer-diffusers-small', 'io.safetensors', DIFFUSERS_HOST],
  ['transformer-diffusers-small', 'io_t2i.safetensors', DIFFUSERS_HOST],
  ['t5-padded', 'io.safetensors', { ...T5_HOST, 'len160.mid.embeddings': BY_HOST }],
  ['t5-masked', 'io.safetensors', { ...T5_HOST, 'len64.mid.embeddings': BY_HOST }],
  ['clip-eos-legacy', 'io.safetensors', {}],
  ['clip-eos-id', 'io.safetensors', {}],
  ['vae-bfl', 'io.safetensors', {}],
  ['vae-diffusers', 'io.safetensors', {}],
];

function casesOf(fixture: string, file: string): ReferenceCase[] {
  if (fixture.startsWith('t5')) return t5Cases(fixture);
  if (fixture.startsWith('clip')) return clipCases(fixture);
  if (fixture === 'vae-bfl' || fixture === 'vae-diffusers') return vaeCases(fixture);
  return TRANSFORMERS.filter((t) => t[0] === fixture && t[1] === file).flatMap((t) => [
    modulationCase(...t),
    denoiseCase(...t),
  ]);
}

describe('every stored value is compared', () => {
  it.each(ELSEWHERE)('%s %s', (fixture, file, elsewhere) => {
    const stored = [...readSafetensors(fixturePath(`${fixture}/${file}`)).keys()];
    const results = stored.filter((name) => /(^|\.)(mid|out|relative)\./.test(name));
    const cases = casesOf(fixture, file);
    const compared = new Set(cases.flatMap((c) => c.expected.map(({ reference }) => reference)));
    expect(results.filter((name) => !compared.has(name)).sort()).toEqual(Object.keys(elsewhere).sort());
    // A batch must not hide behind its first sample.
    for (const name of results.filter((n) => compared.has(n) && !n.startsWith('relative.'))) {
      const times = cases.filter((c) => c.expected.some(({ reference }) => reference === name)).length;
      const batch = readSafetensors(fixturePath(`${fixture}/${file}`)).get(name)!.shape[0];
      expect(times, name).toBe(batch);
    }
  });
});

describe('what the host computes equals the reference', () => {
  it.each(TRANSFORMERS)('%s %s #%i: rotary table and embeddings', (fixture, file, index) => {
    const io = readSafetensors(fixturePath(`${fixture}/${file}`));
    const { axes, theta, guidance } = fluxSpec(fixture);
    const { textTokens, image, references } = fluxShape(fixture, file);
    const table = ropeTable(axes, theta, textTokens, image, references);
    const pairs = (name: string): Float32Array => floatTensor(io, name).filter((_, i) => i % 2 === 0);
    if (io.has('mid.pos_embed.cos')) {
      // Diffusers makes its table in float64, as we do, and repeats each value for both of a pair.
      expect(
        errorOf(
          table.filter((_, i) => i % 2 === 0),
          pairs('mid.pos_embed.cos'),
        ).worst,
      ).toBeLessThan(1e-6);
      expect(
        errorOf(
          table.filter((_, i) => i % 2 === 1),
          pairs('mid.pos_embed.sin'),
        ).worst,
      ).toBeLessThan(1e-6);
      return;
    }
    // BFL rounds the angle to float32: 1e-5 at the far columns of a table.
    expect(errorOf(table, ropeOf(sample(io, 'mid.pe', index))).worst).toBeLessThan(1e-5);
    // float32 arguments of up to 2500 radians: half an ulp is 1.2e-4.
    const embedded = (what: 'timesteps' | 'guidance'): Float32Array =>
      sinusoids(what, sample(io, `in.${what}`, index), 'exact');
    const stored = (name: string): Float32Array => sample(io, name, index);
    expect(errorOf(embedded('timesteps'), stored('mid.timestep_embedding')).worst).toBeLessThan(2e-4);
    if (!guidance) return;
    expect(errorOf(embedded('guidance'), stored('mid.guidance_embedding')).worst).toBeLessThan(2e-4);
  });

  it.each(['t5-padded', 't5-masked'])('%s: buckets of relative positions, rows of the embedding table', (fixture) => {
    const io = readSafetensors(fixturePath(`${fixture}/io.safetensors`));
    const { config } = fixtureMeta(fixture);
    const distances = [...io.get('relative.key_minus_query')!.data];
    const tokens = (distances.length + 1) / 2;
    expect(distances).toEqual(distances.map((_, i) => i - (tokens - 1)));
    const { relative_attention_num_buckets: buckets, relative_attention_max_distance: most } = config;
    expect([...relativeBuckets(tokens, buckets, most)]).toEqual([...io.get('relative.bucket')!.data]);

    const [embeddings, prefix] = /^(.*)\.mid\.embeddings$/.exec([...io.keys()].find((k) => k.endsWith('embeddings'))!)!;
    const table = floatTensor(readSafetensors(fixturePath(`${fixture}/weights.safetensors`)), 'shared.weight');
    const ids = io.get(`${prefix}.in.input_ids`)!.data;
    expect(errorOf(rowsOf(table, config.d_model, ids), floatTensor(io, embeddings)).worst).toBe(0);
  });

  it.each(['clip-eos-legacy', 'clip-eos-id'])('%s: the row of the pooled output', (fixture) => {
    const { config, pooled_positions: positions } = fixtureMeta(fixture);
    const { data, shape } = readSafetensors(fixturePath(`${fixture}/io.safetensors`)).get('in.input_ids')!;
    const tokens = shape[1]!;
    const rows = Array.from({ length: shape[0]! }, (_, i) =>
      poolingRow(Int32Array.from(data.subarray(i * tokens, (i + 1) * tokens)), config),
    );
    expect(rows).toEqual(positions);
  });
});
