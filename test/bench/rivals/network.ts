// One evaluation of FLUX.1's transformer in the operations of an Arithmetic: what rivals run, and the float64 result.
// Written from the papers and the checkpoint's names; ours is compiled by the project's own compiler.

import { modulationLayout } from '../../../runtime/src/program/modulation-rows.ts';
import type { Arithmetic } from './arithmetic.ts';

/** The real model's shape with an eighth of its width and few blocks. */
export const FLUX = {
  inChannels: 64,
  outChannels: 64,
  hidden: 384,
  heads: 3,
  doubleBlocks: 2,
  singleBlocks: 4,
  mlpRatio: 4,
  textWidth: 256,
  pooledWidth: 64,
  axes: [16, 56, 56],
  theta: 10000,
  guidance: true,
  qkvBias: true,
};
export const TEXT_TOKENS = 64;
/** Of the picture to make and of its one reference, in patches. */
export const GRID = { height: 16, width: 16 };

/** @param inputs `latents`, `references`, `text`, one `modulation` row, `rope` @returns `[target tokens, outChannels]` */
export function velocity<T>(a: Arithmetic<T>, inputs: Record<string, T>): T {
  const { hidden, heads, doubleBlocks, singleBlocks } = FLUX;
  const { latents, references, text, modulation, rope } = inputs as Record<
    'latents' | 'references' | 'text' | 'modulation' | 'rope',
    T
  >;
  const target = GRID.height * GRID.width;
  const pictures = 2 * target;
  const first = new Map(modulationLayout(FLUX).map((layer) => [layer.name, layer.first]));
  const chunk = (layer: string, i: number): T => a.columns(modulation, first.get(layer)! + i * hidden, hidden);
  const modulated = (x: T, layer: string, i: number): T =>
    a.modulate(a.normalise(x), chunk(layer, i + 1), chunk(layer, i));
  /** Normalised and turned q and k, and v, of `[tokens, 3 · hidden]`. */
  const split = (qkv: T, norm: string, turns: T): [T, T, T] => [
    a.headNorm(a.columns(qkv, 0, hidden), `${norm}.query_norm.scale`, turns, heads),
    a.headNorm(a.columns(qkv, hidden, hidden), `${norm}.key_norm.scale`, turns, heads),
    a.columns(qkv, 2 * hidden, hidden),
  ];

  let img = a.linear(a.below(latents, references), 'img_in');
  let txt = a.linear(text, 'txt_in');
  const turns = { txt: a.rows(rope, 0, TEXT_TOKENS), img: a.rows(rope, TEXT_TOKENS, pictures) };
  for (let i = 0; i < doubleBlocks; i++) {
    const name = `double_blocks.${i}`;
    const qkv = (x: T, s: 'txt' | 'img'): [T, T, T] => {
      const at = `${name}.${s}_attn`;
      return split(a.linear(modulated(x, `${name}.${s}_mod.lin`, 0), `${at}.qkv`), `${at}.norm`, turns[s]);
    };
    const rest = (x: T, s: 'txt' | 'img', attended: T): T => {
      const layer = `${name}.${s}_mod.lin`;
      const after = a.gated(x, chunk(layer, 2), a.linear(attended, `${name}.${s}_attn.proj`));
      const wide = a.gelu(a.linear(modulated(after, layer, 3), `${name}.${s}_mlp.0`));
      return a.gated(after, chunk(layer, 5), a.linear(wide, `${name}.${s}_mlp.2`));
    };
    const [ofText, ofPictures] = [qkv(txt, 'txt'), qkv(img, 'img')];
    const [q, k, v] = ofText.map((t, part) => a.below(t, ofPictures[part]!)) as [T, T, T];
    const attended = a.attend(q, k, v, heads);
    txt = rest(txt, 'txt', a.rows(attended, 0, TEXT_TOKENS));
    img = rest(img, 'img', a.rows(attended, TEXT_TOKENS, pictures));
  }
  let x = a.below(txt, img);
  for (let i = 0; i < singleBlocks; i++) {
    const name = `single_blocks.${i}`;
    const layer = `${name}.modulation.lin`;
    const wide = a.linear(modulated(x, layer, 0), `${name}.linear1`);
    const [q, k, v] = split(a.columns(wide, 0, 3 * hidden), `${name}.norm`, rope);
    const active = a.gelu(a.columns(wide, 3 * hidden, FLUX.mlpRatio * hidden));
    x = a.gated(x, chunk(layer, 2), a.linear(a.beside(a.attend(q, k, v, heads), active), `${name}.linear2`));
  }
  const last = modulated(a.rows(x, TEXT_TOKENS, target), 'final_layer.adaLN_modulation.1', 0);
  return a.linear(last, 'final_layer.linear');
}
