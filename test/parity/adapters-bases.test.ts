// Adapters on 16-bit, q8, q4, GGUF and fp8 weights. The oracle is a checkpoint merged by hand: what the GPU holds of each matrix, decoded in float64,
// plus the adapter's own product, computed here; run in float32 without any adapter.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { FluxSpec } from '../../kernels-codegen/src/models/flux.ts';
import { fluxSpecFromShapes } from '../../kernels-codegen/src/models/specs.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { readBuffer } from '../../runtime/src/execute/ports.ts';
import { fileBytes, openDevice } from '../../runtime/src/index.ts';
import { STORED_FORMATS } from '../../runtime/src/program/formats.ts';
import type { Program } from '../../runtime/src/program/types.ts';
import type { SourceTensor, WeightSource } from '../../runtime/src/weights/source.ts';
import { WeightStore } from '../../runtime/src/weights/store.ts';
import { F32 } from '../../runtime/src/weights/types/floats.ts';
import { heldFormats } from '../../sdk/src/model/formats.ts';
import { openWeightsFile, partOfFile } from '../../sdk/src/model/weights-file.ts';
import {
  type AdapterCase,
  AdapterRunner,
  adapterFile,
  formatsCase,
  smallTransformer,
  testAdapter,
  transformerOnly,
  used,
} from '../support/adapters.ts';
import { fixturePath } from '../support/cases.ts';
import { rawTensors, renamedTensors, safetensors } from '../support/model-files.ts';
import { readSafetensors, type TestTensor } from '../support/safetensors.ts';
import { storedValues } from '../support/stored.ts';

// A busy machine compiles kernels for minutes.
const gpu = await openDevice({ hangMs: 1_500_000 });
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});
const target = targetFor(gpu.report, 'f32');

/** ΔW by tensor, in float64, read with the tests' own reader. */
function deltas(file: string): Map<string, { rows: number; cols: number; values: Float64Array }> {
  const tensors = readSafetensors(file);
  const all = new Map<string, { rows: number; cols: number; values: Float64Array }>();
  for (const [key, a] of tensors) {
    const stem = key.replace(/\.lora_(?:A|down)\.weight$/, '');
    if (stem === key) continue;
    const b = tensors.get(key.replace('lora_A', 'lora_B').replace('lora_down', 'lora_up'))!;
    const [rank, cols] = a.shape as [number, number];
    const rows = b.shape[0]!;
    const alpha = tensors.get(`${stem}.alpha`)?.data[0];
    const factor = alpha === undefined ? 1 : Number(alpha) / rank;
    const values = new Float64Array(rows * cols);
    for (let n = 0; n < rows; n++) {
      for (let r = 0; r < rank; r++) {
        for (let k = 0; k < cols; k++) {
          values[n * cols + k]! += factor * Number(b.data[n * rank + r]) * Number(a.data[r * cols + k]);
        }
      }
    }
    all.set(stem.replace(/^diffusion_model\.|^lora_unet_/, '').replaceAll('_', '.'), { rows, cols, values });
  }
  return all;
}

/** The source with every matrix that the programs read as they hold it, and the deltas added. */
async function mergedByHand(
  source: WeightSource,
  programs: readonly Program[],
  changes: ReturnType<typeof deltas>,
  scale: number,
): Promise<{ source: WeightSource; quantised: number; changed: number }> {
  const store = new WeightStore(gpu, source);
  const values = new Map<string, Float32Array<ArrayBuffer>>();
  let quantised = 0;
  for (const request of programs.flatMap(({ weights }) => weights)) {
    const [rows, cols] = request.shape;
    const whole = source.tensors.get(request.name)!.shape.reduce((a, b) => a * b, 1);
    const buffer = await store.get(request);
    const port = { name: request.name, direction: 'out', type: 'u32', shape: [request.bytes / 4] } as const;
    const bytes = await readBuffer(gpu, buffer, { ...port, shape: [...port.shape], bytes: request.bytes }, 'bytes');
    store.release(request);
    if (STORED_FORMATS[request.format].scales !== 'none') quantised++;
    const decoded = storedValues(request.format, rows, cols, new Uint8Array(bytes));
    const all = values.get(request.name) ?? new Float32Array(whole);
    values.set(request.name, all);
    if (request.cols) {
      const width = source.tensors.get(request.name)!.shape[1]!;
      for (let n = 0; n < rows; n++) {
        for (let k = 0; k < cols; k++) {
          all[((request.rows?.[0] ?? 0) + n) * width + request.cols[0] + k] = decoded[n * cols + k]!;
        }
      }
    } else {
      const isVector = source.tensors.get(request.name)!.shape.length === 1;
      all.set(decoded, (request.rows?.[0] ?? 0) * (isVector ? 1 : cols));
    }
  }
  await store.evict();
  let changed = 0;
  for (const [name, all] of values) {
    const delta = changes.get(name.replace(/\.weight$/, '').replaceAll('_', '.'));
    if (!delta || !name.endsWith('.weight')) continue;
    expect(delta.values.length, name).toBe(all.length);
    delta.values.forEach((value, i) => {
      all[i] = all[i]! + scale * value;
    });
    changed++;
  }
  const tensors = new Map<string, SourceTensor>(
    [...values].map(([name, all]) => {
      const { shape } = source.tensors.get(name)!;
      return [name, { dtype: 'F32', type: F32, shape, bytes: all.byteLength }];
    }),
  );
  const read: WeightSource['read'] = async (name, start, end) =>
    new Uint8Array(values.get(name)!.buffer).slice(start, end);
  return { source: { label: 'merged by hand', tensors, read, close: async () => {} }, quantised, changed };
}

/** An evaluation with made-up inputs. */
function inputsFor(spec: FluxSpec): AdapterCase {
  const tensors = new Map<string, TestTensor>();
  const add = (name: string, shape: number[], from: number) => {
    const count = shape.reduce((a, b) => a * b, 1);
    const data = Float32Array.from({ length: count }, (_, i) => Math.sin(12.9898 * (i + from)) * 1.4);
    tensors.set(`in.${name}`, { shape, data } as TestTensor);
  };
  add('img', [1, 14, 64], 1);
  add('txt', [1, 8, spec.textWidth], 2);
  add('y', [1, spec.pooledWidth], 3);
  for (const [name, value] of [
    ['timesteps', 0.7],
    ['guidance', 2.5],
  ] as const) {
    tensors.set(`in.${name}`, { shape: [1], data: Float32Array.of(value) } as TestTensor);
  }
  return { tensors, index: 0, textTokens: 8, image: { height: 2, width: 4 }, reference: { height: 3, width: 2 } };
}

const worst = (a: Float32Array, b: Float32Array): number => {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};

const transformerOf = async (file: string): Promise<WeightSource> =>
  partOfFile(await openWeightsFile(await fileBytes(fixturePath(file).pathname)), 'transformer');
const AXES: [number, number, number] = [4, 14, 14];
const STYLE = fixturePath('field/lora-diffusion-model-prefix/kontext_style.safetensors').pathname;
const KOHYA = adapterFile('formats/kohya.safetensors');

/** The same style for a model with one single block. */
const folder = mkdtempSync(join(tmpdir(), 'kontext-bases-'));
afterAll(() => rmSync(folder, { recursive: true }));
const SHORT = join(folder, 'style.safetensors');
const shorter = (name: string): string => name.replace('single_blocks.1', 'single_blocks.0');
writeFileSync(SHORT, safetensors(renamedTensors(rawTensors(readFileSync(STYLE)), shorter)));

interface Base {
  name: string;
  open(): Promise<WeightSource>;
  file: string;
  /** Of the engine; as the file has them when absent. */
  quantization?: 'none' | 'q8' | 'q4';
}
const small = (quantization: NonNullable<Base['quantization']>): Base => ({
  name: `small transformer, ${quantization}`,
  open: smallTransformer,
  file: KOHYA,
  quantization,
});
const stored = (path: string, file = STYLE): Base => ({ name: path, open: () => transformerOf(path), file });
const BASES: Base[] = [
  small('none'),
  small('q8'),
  small('q4'),
  stored('field/base/flux1-kontext-dev.safetensors'),
  stored('field/weights-gguf-q8_0/flux1-kontext-dev-Q8_0.gguf'),
  stored('field/weights-gguf-q4_k/flux1-kontext-dev-Q4_K.gguf'),
  stored('field/weights-gguf-q5_k/flux1-kontext-dev-Q5_K.gguf'),
  // 8-bit floats: plain, and with ComfyUI's scales.
  stored('fp8/flux_e4m3fn.safetensors', SHORT),
  stored('field/weights-fp8-scaled/flux1-dev-kontext_fp8_scaled.safetensors'),
];
const ROOM = 16;
const SCALE = 0.75;

describe('adapters beside stored weights are the checkpoint merged by hand', { timeout: 300_000 }, () => {
  it.each(BASES)('$name', async ({ open, file, quantization }) => {
    const source = await open();
    const held = quantization === undefined ? heldFormats(source) : undefined;
    const isSmall = quantization !== undefined;
    const spec = isSmall ? undefined : { ...fluxSpecFromShapes((name) => source.tensors.get(name)?.shape), axes: AXES };
    const weights = { ...(quantization && { quantization }), ...(held && { stored: held }) };
    const runner = new AdapterRunner(gpu, source, target, { ...(spec && { spec }), weights });
    const c = spec ? inputsFor(spec) : formatsCase();
    const adapter = await testAdapter(new Uint8Array(readFileSync(file)), transformerOnly(source));
    expect(adapter.unused).toEqual([]);

    const base = await runner.run(c, [], ROOM);
    const beside = await runner.run(c, [used(adapter, SCALE)], ROOM);
    const byHand = await mergedByHand(source, runner.programs, deltas(file), SCALE);
    expect(byHand.changed).toBe(new Set(adapter.updates.map(({ module }) => module)).size);
    expect(byHand.quantised > 0).toBe(held !== undefined || (isSmall && quantization !== 'none'));

    const plain = new AdapterRunner(gpu, byHand.source, target, spec ? { spec } : {});
    const wanted = await plain.run(c, [], undefined);
    expect(worst(base, wanted)).toBeGreaterThan(2e-3);
    expect(worst(beside, wanted)).toBeLessThan(1e-4);
    // Half of it is another picture: the strength is not lost in the weights.
    expect(worst(await runner.run(c, [used(adapter, SCALE / 2)], ROOM), wanted)).toBeGreaterThan(1e-3);
    expect(await runner.run(c, [used(adapter, 0)], ROOM)).toEqual(base);
    await runner.dispose();
    await plain.dispose();
    await adapter.close();
    await source.close();
  });
});
