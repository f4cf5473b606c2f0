// Region caching through the pipeline on the tiny reference model: what runs, what stays, and that the region's tokens get their own velocity.
import { describe, expect, it } from 'vitest';
import { BufferUsage } from '../../runtime/src/gpu/flags.ts';
import { modulationWidth } from '../../runtime/src/program/modulation-rows.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import { ropeTable } from '../../sdk/src/kontext/rope.ts';
import { regionVelocity } from '../../sdk/src/kontext/stages/region.ts';
import type { EditRequest } from '../../sdk/src/kontext/types.ts';
import type { Branch } from '../../sdk/src/kontext/velocity.ts';
import { seededRandom } from '../quality/scenes.ts';
import { drawnPicture } from '../support/drawn-picture.ts';
import { runRequest, worstDifference } from '../support/pipeline-context.ts';
import { tinyPipeline } from '../support/tiny-pipeline.ts';

const { context } = await tinyPipeline();

const [WIDTH, HEIGHT, STEPS] = [96, 64, 6];
const picture = (at: (x: number, y: number) => number) => drawnPicture(WIDTH, HEIGHT, at);
const random = seededRandom(4);
const image = picture(() => random() * 256);
/** White where x is at least `from`. */
const mask = (from: number) => picture((x) => (x >= from ? 255 : 0));
const run = (more: Partial<EditRequest>) =>
  runRequest(context, {
    image,
    prompt: 'a red cat',
    steps: STEPS,
    maxSequenceLength: 32,
    size: { width: WIDTH, height: HEIGHT },
    autoResize: false,
    maskMode: 'reference',
    seed: 3,
    output: 'latents',
    ...more,
  } as EditRequest);

describe('region caching', { timeout: 600_000 }, () => {
  it('runs as planned, changes what may change a little, and nothing else', async () => {
    const whole = await run({ mask: mask(48) });
    const cached = await run({ mask: mask(48), cache: { kind: 'region', interval: 3, start: 2, margin: 0 } });
    // W W - - W -
    expect(cached.skipped).toBe(3);
    expect(cached.steps.slice(0, 2)).toEqual(whole.steps.slice(0, 2));
    const size = whole.latents[0]!.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    const parts = [0, 1].map((right) =>
      [whole, cached].map(({ latents }) => latents[0]!.filter((_, i) => Number(Math.floor(i / 64) % 6 >= 3) === right)),
    );
    expect(parts[0]![0]).toEqual(parts[0]![1]);
    const difference = worstDifference(parts[1]![0]!, parts[1]![1]!) / size;
    expect(difference).toBeGreaterThan(1e-6);
    expect(difference).toBeLessThan(0.5);
  });

  it('is the plain evaluation where all may change, or where every one is whole', async () => {
    const whole = await run({ mask: mask(48) });
    const always = await run({ mask: mask(48), cache: { kind: 'region', interval: 1 } });
    expect(always.skipped).toBe(0);
    expect(always.latents).toEqual(whole.latents);
    const all = await run({ mask: mask(0), cache: { kind: 'region' } });
    expect(all.skipped).toBe(0);
    expect(all.latents).toEqual((await run({ mask: mask(0) })).latents);
  });

  it('is an evaluation of the region’s tokens alone, each at its own place', async () => {
    const { parts } = context;
    const { axes, theta, textWidth, outChannels } = parts.specs.transformer;
    const target = { width: WIDTH, height: HEIGHT };
    const [columns, rows, text] = [6, 4, 8];
    // As many as a region has, so that none are added.
    const tokens = [0, 1, 3, 4, 5, 8, 13, 20, 23];
    const packed = new Float32Array(columns * rows * outChannels);
    for (const token of tokens) packed[token * outChannels] = 1;
    const references = Float32Array.from({ length: 4 * outChannels }, () => random() - 0.5);
    const place = { width: 2, height: 2, index: 1, row: 0, column: 0 };
    const job = {
      target,
      context: [{ width: 32, height: 32 }],
      places: [place],
      maxSequenceLength: text,
      mask: packed,
    };
    const states = Float32Array.from({ length: text * textWidth }, () => random() - 0.5);
    const modulation = Float32Array.from({ length: modulationWidth(parts.specs.transformer) }, () => random() - 0.5);
    const buffer = async (values: Float32Array<ArrayBuffer>): Promise<GPUBuffer> => {
      const made = await parts.allocate('test', values.byteLength, BufferUsage.COPY_SRC | BufferUsage.COPY_DST);
      parts.gpu.queue.writeBuffer(made, 0, values);
      return made;
    };
    const table = await buffer(modulation);
    const branch = {
      text: await buffer(states),
      textBytes: states.byteLength,
      rows: { copyOf: () => ({ from: table, fromOffset: 0, to: 'modulation', toOffset: 0, bytes: table.size }) },
    } as unknown as Branch;
    const work = { signal: new AbortController().signal, tracker: new ProgressTracker(undefined), loadMs: 0 };
    const latents = Float32Array.from({ length: columns * rows * outChannels }, () => random() - 0.5);
    const cache = { kind: 'region', interval: 9, start: 1, margin: 0 } as const;
    const velocity = await regionVelocity(cache, parts, job, [references], [branch], work);
    velocity.writeLatents(latents);
    await velocity.run(0, 0);
    const before = await velocity.read('velocity');
    await velocity.run(0, 0);
    expect(velocity.skipped).toBe(1);
    const after = await velocity.read('velocity');
    await velocity.dispose?.();

    // The same tokens by hand: the first is at (0, 0), each other one a picture of one token where it lies.
    const rowOf = (values: Float32Array, token: number) => values.slice(token * outChannels, (token + 1) * outChannels);
    const one = { width: 1, height: 1 };
    const others = tokens.slice(1).map((token) => ({
      ...one,
      index: 0,
      row: Math.floor(token / columns),
      column: token % columns,
    }));
    const image = { height: 1, width: tokens.length };
    const alone = await parts.bind(
      { component: 'denoise', textTokens: text, image, references: [{ width: 2, height: 2 }] },
      work,
    );
    alone.write('rope', ropeTable(axes, theta, text, one, [...others, place]));
    alone.write('latents', Float32Array.from(tokens.flatMap((token) => [...rowOf(latents, token)])));
    alone.write('references', references);
    alone.write('text', states);
    alone.write('modulation', modulation);
    await parts.run(alone, work);
    const expected = await alone.read('velocity');
    for (let token = 0; token < columns * rows; token++) {
      const at = tokens.indexOf(token);
      expect(rowOf(after, token), `token ${token}`).toEqual(at < 0 ? rowOf(before, token) : rowOf(expected, at));
    }
    for (const made of [branch.text, table]) parts.free(made);
  });
});
