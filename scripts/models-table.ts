// What the real model takes on a GPU, from the programs themselves: the tables of docs/guide/models.md.
// `npm run docs:models` writes them; a test holds the page to them.
import { type CompileRequest, type Component, compile } from '../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../kernels-codegen/src/targets/profiles.ts';

const { transformer, t5, clip, vae } = FLUX1_KONTEXT_DEV;
const grid = { width: 64, height: 64 };
const square = { width: 1024, height: 1024 };
const QUANTIZATIONS = ['none', 'q8', 'q4'] as const;
type Quantization = (typeof QUANTIZATIONS)[number];

const COMPONENTS = {
  transformer: { component: 'denoise', spec: transformer, textTokens: 512, image: grid, references: [grid] },
  t5: { component: 't5', spec: t5, tokens: 512 },
  clip: { component: 'clip', spec: clip, tokens: 77 },
  encoder: { component: 'vae-encode', spec: vae, ...square },
  decoder: { component: 'vae-decode', spec: vae, ...square },
} satisfies Record<string, Component>;

/** The table of GPU memory for an edit of one megapixel with one reference, as Markdown. */
export function memoryTable(): string {
  const rows = QUANTIZATIONS.map((quantization) => {
    const of = (name: keyof typeof COMPONENTS) => sizeOf(COMPONENTS[name], quantization);
    const [image, text, small, enc, dec] = [of('transformer'), of('t5'), of('clip'), of('encoder'), of('decoder')];
    const vaeWeights = enc.weights + dec.weights;
    // One set of slabs serves all programs; it is as large as the largest needs.
    const slabs = Math.max(image.slabs, text.slabs, enc.slabs, dec.slabs);
    const phased = Math.max(text.weights + small.weights, image.weights) + vaeWeights + slabs + image.ports;
    const resident = text.weights + small.weights + image.weights + vaeWeights + slabs + image.ports;
    return [
      label(quantization),
      gb(image.weights),
      gb(text.weights),
      gb(small.weights + vaeWeights),
      gb(slabs + image.ports),
      gb(phased),
      gb(resident),
    ];
  });
  return [
    '| `quantization` | transformer | T5 | CLIP, autoencoder | activations | peak, `phased` | peak, `resident` |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...rows.map((cells) => `| ${cells.join(' | ')} |`),
  ].join('\n');
}

const label = (quantization: Quantization) => (quantization === 'none' ? '`none` (f16)' : `\`${quantization}\``);
const gb = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;

function sizeOf(component: Component, quantization: Quantization) {
  // Only the large networks are quantised.
  const stored = component.component === 'denoise' || component.component === 't5' ? quantization : 'none';
  const program = compile({ ...component, target: targetByName('nvidia'), quantization: stored } as CompileRequest);
  const sum = (numbers: number[]) => numbers.reduce((total, n) => total + n, 0);
  return {
    weights: sum(program.weights.map(({ bytes }) => bytes)),
    slabs: sum(program.slabs),
    ports: sum(program.ports.map(({ bytes }) => bytes)),
  };
}
