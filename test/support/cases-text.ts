// Reference cases of the text encoders, T5 and CLIP.

import type { Component } from '../../kernels-codegen/src/compile.ts';
import { clipSpecFromConfig, t5SpecFromConfig } from '../../kernels-codegen/src/models/specs.ts';
import { type Expectation, fixtureMeta, fixturePath, type ReferenceCase, rowsOf, sample } from './cases.ts';
import { floatTensor, readSafetensors, type TestTensor } from './safetensors.ts';

export function t5Cases(fixture: string): ReferenceCase[] {
  const spec = t5SpecFromConfig(fixtureMeta(fixture).config);
  const io = readSafetensors(fixturePath(`${fixture}/io.safetensors`));
  const table = floatTensor(readSafetensors(fixturePath(`${fixture}/weights.safetensors`)), 'shared.weight');
  const cases: ReferenceCase[] = [];
  for (const prefix of [...io.keys()].filter((k) => k.endsWith('.in.input_ids')).map((k) => k.split('.')[0]!)) {
    const [batch, tokens] = io.get(`${prefix}.in.input_ids`)!.shape as [number, number];
    const ids = io.get(`${prefix}.in.input_ids`)!.data;
    for (let index = 0; index < batch; index++) {
      const inputs = { embeddings: rowsOf(table, spec.width, ids.subarray(index * tokens, (index + 1) * tokens)) };
      const stored = `${prefix}.out.last_hidden_state`;
      const expected: Expectation[] = [{ reference: stored, label: 'hidden', values: sample(io, stored, index) }];
      for (const reference of io.keys()) {
        const block = reference.startsWith(`${prefix}.mid.block.`) && reference.slice(`${prefix}.mid.`.length);
        if (!block) continue;
        const label = block
          .replace('SelfAttention.o.in', 'SelfAttention')
          .replace('layer_norm.out', 'layer_norm')
          .replace('wo.in', 'gated');
        expected.push({ reference, label: `encoder.${label}`, values: sample(io, reference, index) });
      }
      // Length 512 stays as programs are in use, with nothing tapped.
      if (expected.length > 1) expected.push(relativeBias(io, tokens, spec.heads));
      const name = `${fixture}/${prefix}#${index}`;
      const request: Component = { component: 't5', spec, tokens };
      cases.push({ name, fixture, request, inputs, expected });
      const masked = `${prefix}.out.last_hidden_state_masked`;
      if (!io.has(masked)) continue;
      const mask = io.get(`${prefix}.in.attention_mask`)!.data.subarray(index * tokens, (index + 1) * tokens);
      const validTokens = [...mask].reduce((a, b) => a + b, 0);
      // What the reference computed for tokens it masks is of no meaning.
      const values = sample(io, masked, index).subarray(0, validTokens * spec.width);
      cases.push({
        name: `${name} masked`,
        fixture,
        request: { component: 't5', spec, tokens, validTokens },
        inputs,
        expected: [{ reference: masked, label: 'hidden', values }],
      });
    }
  }
  return cases;
}

/** `[heads, distances]` of −600 … 600 to our `[distances, heads]` of −(tokens − 1) … tokens − 1. */
function relativeBias(io: Map<string, TestTensor>, tokens: number, heads: number): Expectation {
  const reference = 'relative.bias_by_head';
  const stored = floatTensor(io, reference);
  const distances = stored.length / heads;
  const first = (distances - 1) / 2 - (tokens - 1);
  const values = Float32Array.from(
    { length: (2 * tokens - 1) * heads },
    (_, i) => stored[(i % heads) * distances + first + Math.floor(i / heads)]!,
  );
  return { reference, label: 'relative bias', values };
}

export function clipCases(fixture: string): ReferenceCase[] {
  const { config, pooled_positions: positions } = fixtureMeta(fixture);
  const spec = clipSpecFromConfig(config);
  const io = readSafetensors(fixturePath(`${fixture}/io.safetensors`));
  const weights = readSafetensors(fixturePath(`${fixture}/weights.safetensors`));
  const table = floatTensor(weights, 'text_model.embeddings.token_embedding.weight');
  const [batch, tokens] = io.get('in.input_ids')!.shape as [number, number];
  return Array.from({ length: batch }, (_, index) => {
    const ids = io.get('in.input_ids')!.data.subarray(index * tokens, (index + 1) * tokens);
    const states = Array.from({ length: spec.layers + 1 }, (_, i): Expectation => {
      const reference = `mid.hidden_states.${i}`;
      const label = i ? `text_model.encoder.layers.${i - 1}` : 'embeddings + positions';
      return { reference, label, values: sample(io, reference, index) };
    });
    const end = positions[index] * spec.width;
    const expected: Expectation[] = [
      ...states,
      { reference: 'out.last_hidden_state', label: 'hidden', values: sample(io, 'out.last_hidden_state', index) },
      {
        reference: 'out.pooler_output',
        label: 'hidden',
        values: sample(io, 'out.pooler_output', index),
        pick: (ours) => ours.subarray(end, end + spec.width),
      },
    ];
    const inputs = { embeddings: rowsOf(table, spec.width, ids) };
    return { name: `${fixture}#${index}`, fixture, request: { component: 'clip', spec, tokens }, inputs, expected };
  });
}
