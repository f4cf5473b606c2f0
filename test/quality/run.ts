// How well the demo model edits, measured through the SDK: right answers and PSNR by kind, five-turn sessions, drift.
// Prints a Markdown table and JSON; `npm run quality` with --draws N and --sessions N. With --quantization q8,q4,… it measures these
// storages beside f16 instead, on the same scenes; with --study NAME it compares settings of requests on the same scenes.

import { mkdir, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { toRgb } from '../../sdk/src/image/pixels.ts';
import { demoModel, Kontext } from '../../sdk/src/node.ts';
import { drift, judge, percent, picture } from './judge.ts';
import { EDIT_KINDS, type EditKind, editOf, render, SCENE_SIZE, sampleEdit, seededRandom } from './scenes.ts';
import { measureStorage } from './storage.ts';
import { anchorStudy } from './studies/anchor.ts';
import { cache, cacheDefault } from './studies/cache.ts';
import { positions } from './studies/positions.ts';
import { region } from './studies/region.ts';
import { samplers } from './studies/samplers.ts';
import { variantsStudy } from './studies/variants.ts';
import { runStudy, type Study, tableOf } from './study.ts';

const STUDIES: Record<string, Study> = {
  positions,
  variants: variantsStudy,
  samplers,
  cache,
  'cache-default': cacheDefault,
  region,
};

const { values } = parseArgs({
  options: {
    draws: { type: 'string', default: '200' },
    sessions: { type: 'string', default: '50' },
    seed: { type: 'string', default: '20261123' },
    model: { type: 'string' },
    study: { type: 'string' },
    scenes: { type: 'string', default: '40' },
    minutes: { type: 'string', default: '600' },
    quantization: { type: 'string' },
  },
});
const draws = Number(values.draws);
const sessions = Number(values.sessions);
const random = seededRandom(Number(values.seed));

/** Kinds a five-turn session is made of: they keep an object that later turns can edit. */
const TURN_KINDS = ['background', 'replace', 'move', 'resize'] as const;

if (values.quantization !== undefined) {
  await measureStorage(values.model ?? demoModel(), values.quantization.split(','), draws, random);
  process.exit(0);
}
await using kontext = await Kontext.load(values.model ?? demoModel());
if (values.study === undefined) await overall();
else await compare(values.study);

/** Settings on the same scenes: a table, and everything as JSON in out/quality. */
async function compare(name: string): Promise<void> {
  const options = { scenes: Number(values.scenes), seed: Number(values.seed), minutes: Number(values.minutes) };
  const study = STUDIES[name];
  if (!study && name !== 'anchor')
    throw new Error(`There is no study ${name}; there are anchor, ${Object.keys(STUDIES).join(', ')}.`);
  const found = study && (await runStudy(kontext, study, options));
  const { table, rows } = found ? { table: tableOf(found), rows: found } : await anchorStudy(kontext, options);
  console.log(table);
  if (found) console.log(`\n${found[0]!.n} scenes, seed ${values.seed}. ${study.about}`);
  await mkdir('out/quality', { recursive: true });
  await writeFile(`out/quality/${name}.json`, `${JSON.stringify({ name, ...options, rows }, null, 1)}\n`);
}

async function overall(): Promise<void> {
  const byKind: Record<string, { right: number; psnr: number }> = {};
  for (const kind of EDIT_KINDS) byKind[kind] = await measureKind(kind);
  const chains = await measureSessions();

  console.log('| kind | right answers | PSNR to the true answer |\n| --- | --- | --- |');
  for (const [kind, { right, psnr }] of Object.entries(byKind)) {
    console.log(`| ${kind} | ${percent(right)} | ${psnr.toFixed(1)} dB |`);
  }
  console.log(`\n${draws} unseen draws of each kind, seed ${values.seed}, 12 steps.`);
  console.log('\n| turn | right answers | mean drift of untouched pixels |\n| --- | --- | --- |');
  for (const [i, { right, drift }] of chains.entries())
    console.log(`| ${i + 1} | ${percent(right)} | ${drift.toFixed(2)} levels |`);
  console.log(
    `\n${sessions} sessions of five turns. Drift: mean absolute difference from the picture the session started`,
  );
  console.log('with, in grey levels of 255, over pixels that no true answer so far has changed.');
  console.log(JSON.stringify({ byKind, chains, draws, sessions, seed: values.seed }));
}

async function measureKind(kind: EditKind): Promise<{ right: number; psnr: number }> {
  let right = 0;
  let decibels = 0;
  for (let i = 0; i < draws; i++) {
    const { context, prompt, target } = sampleEdit(random, kind);
    const seed = Math.floor(random() * 2 ** 32);
    const { image } = context
      ? await kontext.edit({ image: picture(context), prompt, seed })
      : await kontext.generate({ prompt, seed });
    const answer = judge(image, target);
    if (answer.right) right++;
    decibels += answer.psnr;
  }
  process.stderr.write(`${kind}: ${percent(right / draws)}, ${(decibels / draws).toFixed(1)} dB\n`);
  return { right: right / draws, psnr: decibels / draws };
}

/** Each turn edits the model's own last picture; the truth follows the instructions from the true start. */
async function measureSessions(): Promise<{ right: number; drift: number }[]> {
  const turns = Array.from({ length: 5 }, () => ({ right: 0, drift: 0 }));
  for (let i = 0; i < sessions; i++) {
    // A start with an object in the middle: the first turn may then be of any kind.
    let truth = sampleEdit(random, 'resize').context!;
    const start = render(truth);
    const untouched = new Uint8Array(SCENE_SIZE * SCENE_SIZE).fill(1);
    const session = kontext.session(picture(truth));
    for (const turn of turns) {
      const kinds = TURN_KINDS.filter((kind) => kind !== 'resize' || truth.place === 'center');
      const possible = kinds.filter((kind) => kind !== 'move' || truth.size < 30);
      const kind = possible[Math.floor(random() * possible.length)]!;
      const { prompt, target } = editOf(random, kind, truth);
      truth = target;
      const { image } = await session.edit(prompt, { seed: Math.floor(random() * 2 ** 32) });
      if (judge(image, truth).right) turn.right += 1 / sessions;
      turn.drift += drift(start, toRgb(image), render(truth), untouched) / sessions;
    }
  }
  return turns;
}
