// The transformer under normalised attention guidance (Chen et al. 2025, NAG, https://arxiv.org/abs/2505.21179).
// One picture, two texts: every attention of the picture is computed with either, and the second pushes the first away.

import { modulationWidth } from '../../../runtime/src/program/modulation-rows.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph, Tensor } from '../graph/graph.ts';
import type { DenoiseShape } from './flux.ts';
import { tokensOf } from './flux.ts';
import { type FluxSpec, fluxBlocks } from './flux-blocks.ts';

/** The picture, the text and the negative text. */
interface Streams {
  img: Tensor;
  txt: Tensor;
  neg: Tensor;
}

/**
 * `buildDenoise` with further inputs `textNegative`, `modulationNegative` and `nag` `[1, 4]` = (scale, τ, α, 0).
 *
 * The negative text goes through all blocks as further tokens that only see each other and the picture; what the picture's tokens get
 * from attention with it is what `guideRows` pushes theirs away from. So an evaluation costs the negative text's tokens and one more
 * attention of the picture's, not a second network. The picture stays one: modulated by the prompt, also in single blocks, where the
 * authors' code keeps two that differ in their modulation.
 */
export function buildDenoiseNag(g: Builder, spec: FluxSpec, shape: DenoiseShape): Graph {
  const { hidden } = spec;
  const text = shape.textTokens;
  const target = tokensOf(shape.image);
  const context = shape.references.reduce((sum, r) => sum + tokensOf(r), 0);
  const picture = target + context;
  const blocks = fluxBlocks(g, spec);

  const latents = g.input('latents', target, spec.outChannels);
  const extra = spec.inChannels - spec.outChannels;
  const control = extra ? [g.input('control', target, extra)] : [];
  const references = context ? g.input('references', context, spec.inChannels) : undefined;
  const states = g.input('text', text, spec.textWidth);
  const negative = g.input('textNegative', text, spec.textWidth);
  const row = g.input('modulation', 1, modulationWidth(spec));
  const rowNegative = g.input('modulationNegative', 1, modulationWidth(spec));
  const rope = g.input('rope', text + picture, hidden / spec.heads);
  const settings = g.input('nag', 1, 4);
  const ropeOfText = g.rows(rope, 0, text);
  const ropeOfPicture = g.rows(rope, text, picture);

  /** Of rows text, picture, negative text: so the keys of either prompt lie in one piece. */
  const attend = (qkv: Tensor, label: string): Streams => {
    const [txt, img, neg] = [g.rows(qkv, 0, text), g.rows(qkv, text, picture), g.rows(qkv, text + picture, text)];
    const keys = { txt: g.rows(qkv, 0, text + picture), neg: g.rows(qkv, text, picture + text) };
    const guided = g.guideRows(
      blocks.attend(img, keys.txt, `${label} of the picture`),
      blocks.attend(img, keys.neg, `${label} of the picture, negative`),
      settings,
      `${label} guided`,
    );
    return {
      txt: blocks.attend(txt, keys.txt, `${label} of the text`),
      img: guided,
      neg: blocks.attend(neg, keys.neg, `${label} of the negative text`),
    };
  };

  const embedded = [g.linear([latents, ...control], 'img_in', hidden)];
  if (references) embedded.push(g.linear(references, 'img_in', hidden));
  let s: Streams = {
    img: g.concatRows(embedded, 'img_in'),
    txt: g.linear(states, 'txt_in', hidden),
    neg: g.linear(negative, 'txt_in', hidden),
  };
  for (let i = 0; i < spec.doubleBlocks; i++) {
    const parts = [
      blocks.doubleQkv(i, 'txt', s.txt, row, ropeOfText),
      blocks.doubleQkv(i, 'img', s.img, row, ropeOfPicture),
      blocks.doubleQkv(i, 'txt', s.neg, rowNegative, ropeOfText),
    ];
    const seen = attend(g.concatRows(parts, `double_blocks.${i}.qkv`), `double_blocks.${i}.attention`);
    s = {
      txt: blocks.doubleRest(i, 'txt', s.txt, seen.txt, row),
      img: blocks.doubleRest(i, 'img', s.img, seen.img, row),
      neg: blocks.doubleRest(i, 'txt', s.neg, seen.neg, rowNegative),
    };
  }
  let [x, neg] = [g.concatRows([s.txt, s.img], 'stream'), s.neg];
  for (let i = 0; i < spec.singleBlocks; i++) {
    const [h, hNegative] = [blocks.singleNorm(i, x, row), blocks.singleNorm(i, neg, rowNegative)];
    const parts = [blocks.singleQkv(i, h, rope), blocks.singleQkv(i, hNegative, ropeOfText)];
    const seen = attend(g.concatRows(parts, `single_blocks.${i}.qkv`), `single_blocks.${i}.attention`);
    x = blocks.singleRest(i, x, h, g.concatRows([seen.txt, seen.img], `single_blocks.${i}.attended`), row);
    // The last block's negative text is seen by nothing any more; dead values are dropped.
    neg = blocks.singleRest(i, neg, hNegative, seen.neg, rowNegative);
  }
  g.output('velocity', blocks.last(g.rows(x, text, target), row));
  return g.finish();
}
