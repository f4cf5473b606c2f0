// Any two features of an edit: they work together on the tiny reference model, or are refused by a sentence that says what to do.
import { describe, expect, it, vi } from 'vitest';
import { checkFamily } from '../../sdk/src/kontext/family.ts';
import { checkRequest } from '../../sdk/src/kontext/request.ts';
import type { EditRequest } from '../../sdk/src/kontext/types.ts';
import { BASE, FEATURES, PAIRS, refusalOf } from '../support/editing-features.ts';
import { runRequest } from '../support/pipeline-context.ts';
import { tinyPipeline } from '../support/tiny-pipeline.ts';

const { context } = await tinyPipeline();

const requestOf = (...names: string[]) =>
  Object.assign({}, BASE, ...names.map((name) => FEATURES[name]!.request)) as EditRequest;

/** Programs of the loop that are bound without having been asked for before anything was: a bundle that lacks one would be found late. */
const unforeseen: string[] = [];
const asked = new Set<string>();
const { parts } = context;
const [program, bind] = [parts.program.bind(parts), parts.bind.bind(parts)];
vi.spyOn(parts, 'program').mockImplementation((shape) => {
  asked.add(JSON.stringify(shape));
  return program(shape);
});
vi.spyOn(parts, 'bind').mockImplementation((shape, ...more) => {
  const ofLoop = /^(denoise|taylor|euler|sampler|cfg|keep-known)/.test(shape.component);
  if (ofLoop && !asked.has(JSON.stringify(shape))) unforeseen.push(shape.component);
  return bind(shape, ...more);
});

describe('pairs of features', { timeout: 600_000 }, () => {
  it.each(PAIRS.filter((pair) => refusalOf(...pair)))('%s and %s are refused', async (a, b) => {
    const error = await runRequest(context, requestOf(a, b)).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: 'invalid-request', message: expect.stringMatching(refusalOf(a, b)!) });
  });

  it.each(PAIRS.filter((pair) => !refusalOf(...pair)))('%s and %s work', async (a, b) => {
    const request = requestOf(a, b);
    checkFamily(context.family, checkRequest(request));
    asked.clear();
    const { images, latents, scene } = await runRequest(context, request);
    expect(unforeseen.splice(0)).toEqual([]);
    expect(images).toHaveLength(request.images ?? 1);
    for (const values of latents) expect(values.every(Number.isFinite)).toBe(true);
    const { width, height } = images[0]!;
    const { target } = scene.sizes;
    // Exact masks give back the whole input, all others the model's size.
    const wide = request.expand ? 48 : 32;
    const exact = request.expand || (request.mask && request.maskMode !== 'reference');
    expect([width, height]).toEqual(exact ? [wide, 32] : [target.width, target.height]);
  });
});
