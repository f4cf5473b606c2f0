// Adapter files in every style of names and every kind of factor: keys, shapes, types, values and header entries changed.
// What is taken is also read as a request would read it, because factors stay in the file until then.
import { addDense } from '../../../runtime/src/weights/adapters/dense.ts';
import { readFactors } from '../../../runtime/src/weights/adapters/factors.ts';
import { openAdapter } from '../../../runtime/src/weights/adapters/open.ts';
import { planAdapters } from '../../../runtime/src/weights/adapters/plan.ts';
import { PREFIXES, WRAPPER } from '../../../runtime/src/weights/adapters/styles.ts';
import type { ModelTensors } from '../../../runtime/src/weights/adapters/types.ts';
import { memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { openSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { settingsOf } from '../../../sdk/src/kontext/adapters/settings.ts';
import { mutateBytes, mutateJson, pick, type Random } from '../mutate.ts';
import type { Fuzzed } from './index.ts';

type Shapes = Record<string, number[]>;
const tensorsOf = (shapes: Shapes) => new Map(Object.entries(shapes).map(([name, shape]) => [name, { shape }]));

/** A model of eight channels with a module of each kind: whole, of joined rows, of swapped halves, a vector. */
const MODEL: ModelTensors = {
  transformer: tensorsOf({
    'img_in.weight': [8, 4],
    'img_in.bias': [8],
    'double_blocks.0.img_attn.qkv.weight': [24, 8],
    'double_blocks.0.img_attn.qkv.bias': [24],
    'double_blocks.0.img_attn.proj.weight': [8, 8],
    'double_blocks.0.img_attn.norm.query_norm.scale': [4],
    'single_blocks.0.linear1.weight': [56, 8],
    'final_layer.adaLN_modulation.1.weight': [16, 8],
    'final_layer.adaLN_modulation.1.bias': [16],
  }),
  clip: tensorsOf({ 'text_model.encoder.layers.0.mlp.fc1.weight': [8, 8] }),
  t5: tensorsOf({ 'encoder.block.0.layer.0.SelfAttention.q.weight': [8, 8] }),
};

/** Modules with rows and columns as files name them. */
const MODULES: readonly (readonly [name: string, rows: number, cols: number])[] = [
  ['double_blocks.0.img_attn.proj', 8, 8],
  ['double_blocks.0.img_attn.qkv', 24, 8],
  ['double_blocks.0.processor.proj_lora1', 8, 8],
  ['double_blocks.0.processor.qkv_lora1', 24, 8],
  ['single_blocks.0.linear1', 56, 8],
  ['single_transformer_blocks.0.attn.to_q', 8, 8],
  ['single_transformer_blocks.0.proj_mlp', 32, 8],
  ['transformer_blocks.0.attn.to_k', 8, 8],
  ['transformer_blocks.0.attn.norm_q', 4, 1],
  ['norm_out.linear', 16, 8],
  ['img_in', 8, 4],
  ['text_model.encoder.layers.0.mlp.fc1', 8, 8],
  ['encoder.block.0.layer.0.SelfAttention.q', 8, 8],
  ['no.such.module', 8, 8],
];

/** Factors of an [n, k] change, as the trainers store them. */
const KINDS: readonly ((n: number, k: number) => Shapes)[] = [
  (n, k) => ({ '.lora_A.weight': [2, k], '.lora_B.weight': [n, 2] }),
  (n, k) => ({ '.lora_A.default.weight': [2, k], '.lora_B.default.weight': [n, 2], '.lora_B.bias': [n] }),
  (n, k) => ({ '.lora_down.weight': [2, k], '.lora_up.weight': [n, 2], '.alpha': [] }),
  (n, k) => ({ '.lora.down.weight': [2, k, 1, 1], '.lora.up.weight': [n, 2, 1, 1] }),
  (n, k) => ({ '.down.weight': [2, k], '.up.weight': [n, 2] }),
  (n, k) => ({ '.hada_w1_a': [n, 2], '.hada_w1_b': [2, k], '.hada_w2_a': [n, 2], '.hada_w2_b': [2, k], '.alpha': [] }),
  (n, k) => ({ '.lokr_w1': [2, 2], '.lokr_w2': [n / 2, k / 2], '.alpha': [1] }),
  (n, k) => ({ '.lokr_w1_a': [2, 1], '.lokr_w1_b': [1, 2], '.lokr_w2_a': [n / 2, 2], '.lokr_w2_b': [2, k / 2] }),
  (n, k) => ({ '.diff': [n, k], '.diff_b': [n] }),
  (n) => ({ '.w_norm': [n], '.b_norm': [n] }),
  (n, k) => ({ '.lora_A.weight': [2, k], '.lora_B.weight': [n, 2], '.lora_magnitude_vector': [n] }),
  (n, k) => ({
    '.lora_down.weight': [2, k],
    '.lora_up.weight': [n, 2],
    '.dora_scale': [n, 1],
    '.lora_mid.weight': [2, 2],
  }),
];

const HEADERS = [
  { format: 'pt' },
  { lora_adapter_metadata: '{"transformer.lora_alpha":4,"alpha_pattern":{"img_attn.proj":2},"use_rslora":true}' },
  { kontext: '{"steps":8,"guidance":3}' },
];

const BYTES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2, F64: 8, I64: 8, I32: 4, U8: 1, F8_E4M3: 1 };

export function adapterInputs(): Fuzzed[] {
  return [
    { name: 'adapters', run: (random) => readAdapter(random, oddAdapter(random)) },
    {
      name: 'adapters, bytes',
      run: (random) => readAdapter(random, mutateBytes(random, oddAdapter(random, false))),
    },
  ];
}

async function readAdapter(random: Random, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const adapter = await openAdapter(await openSafetensors(memoryBytes(bytes)), MODEL);
  settingsOf(adapter);
  const plans = planAdapters([{ adapter, scaleOf: () => 0.5 }], random() < 0.3);
  for (const { beside, merged } of plans.values()) {
    for (const shares of beside.values()) {
      for (const { update } of shares) {
        const { up, down, rank } = await readFactors(adapter.source, update);
        const rows = update.rows[1] - update.rows[0];
        if (up.length !== rows * rank || down.length !== rank * update.cols) {
          throw new Error(`factors of ${update.tensor} have ${up.length} and ${down.length} values`);
        }
      }
    }
    for (const shares of merged.values()) {
      for (const share of shares) {
        const { rows, cols, stored } = share.update;
        const values = new Float32Array((rows[1] - rows[0]) * cols);
        if (stored.kind === 'low-rank' || stored.kind === 'loha') await readFactors(adapter.source, share.update);
        else await addDense(values, share, rows, cols);
      }
    }
  }
  await adapter.close();
}

/** A file of one to four modules, sound or with changed keys, shapes and types; offsets are right unless nothing is. */
function oddAdapter(random: Random, odd = true): Uint8Array<ArrayBuffer> {
  const entries: Record<string, { dtype: string; shape: number[] }> = {};
  for (let count = 1 + Math.floor(random() * 4); count > 0; count--) {
    const [module, rows, cols] = pick(random, MODULES);
    const part = module.startsWith('text_model.') ? 'clip' : module.startsWith('encoder.') ? 't5' : 'transformer';
    const fitting = PREFIXES.filter(({ parts }) => parts.includes(part));
    const { text, underscored } = pick(random, random() < 0.9 ? fitting : PREFIXES);
    const stem = `${random() < 0.1 ? WRAPPER : ''}${text}${underscored ? module.replaceAll('.', '_') : module}`;
    const dtype = random() < 0.7 ? 'F32' : pick(random, Object.keys(BYTES));
    for (const [leaf, shape] of Object.entries(pick(random, KINDS)(rows, cols)))
      entries[stem + leaf] = { dtype, shape };
  }
  const metadata = pick(random, HEADERS) as Record<string, unknown>;
  const seed = JSON.stringify({ entries, metadata });
  const changed = (odd && random() < 0.9 ? mutateJson(random, seed) : JSON.parse(seed)) as {
    entries?: unknown;
    metadata?: unknown;
  } | null;
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, entry] of Object.entries(changed?.entries ?? {})) {
    const { dtype, shape } = (entry ?? {}) as { dtype?: string; shape?: number[] };
    const elements =
      Array.isArray(shape) && shape.every(Number.isInteger) ? shape.reduce((product, n) => product * n, 1) : 1;
    const bytes = elements * ((typeof dtype === 'string' && BYTES[dtype]) || 4);
    const length = Number.isSafeInteger(bytes) && bytes >= 0 && bytes < 65536 ? bytes : 4;
    header[name] = { dtype, shape, data_offsets: [end, end + length] };
    end += length;
  }
  if (changed?.metadata !== undefined) header.__metadata__ = changed.metadata;
  const json = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  // Values of every magnitude; now and then one that is no number.
  const values = new DataView(file.buffer, 8 + json.length);
  for (let at = 0; at + 4 <= end; at += 4) values.setFloat32(at, random() - 0.5, true);
  if (end >= 4 && random() < 0.05)
    values.setFloat32(0, pick(random, [Number.NaN, Number.POSITIVE_INFINITY, 3e38]), true);
  return file;
}
