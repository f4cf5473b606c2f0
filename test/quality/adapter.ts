// Right answers of the demo adapter, which makes every answer black and white: with and without it, on f16, q8 and q4.
// `npm run quality:adapter -- --minutes 10`: scenes are drawn one after the other and every row sees each, so stopping makes n smaller, not rows unequal.
import { parseArgs } from 'node:util';
import { demoAdapter, demoModel, Kontext } from '../../sdk/src/node.ts';
import { judge, mean, percent, picture, wilson } from './judge.ts';
import { EDIT_KINDS, render, type Scene, sampleEdit, seededRandom } from './scenes.ts';

const { values } = parseArgs({
  options: {
    draws: { type: 'string', default: '200' },
    minutes: { type: 'string', default: '600' },
    seed: { type: 'string', default: '20261126' },
  },
});
/** No scene is a negative in grey. */
const KINDS = EDIT_KINDS.filter((kind) => kind !== 'negative');
const STORAGES = ['f16', 'q8', 'q4'] as const;
const ADAPTERS = ['without', 'with'] as const;

interface Row {
  storage: (typeof STORAGES)[number];
  adapter: (typeof ADAPTERS)[number];
  answers: { right: boolean; psnr: number }[];
}

const random = seededRandom(Number(values.seed));
const until = performance.now() + Number(values.minutes) * 60_000;
const rows = STORAGES.flatMap((storage) => ADAPTERS.map((adapter): Row => ({ storage, adapter, answers: [] })));
const engines = new Map<string, Kontext>();
for (const quantization of STORAGES) {
  const adapters = [{ name: 'noir', source: demoAdapter() }];
  engines.set(quantization, await Kontext.load(demoModel(), { quantization, memory: 'resident', adapters }));
}
/** The true answer in grey; an empty white scene is that already, and has no second name. */
function grey(scene: Scene): Scene {
  const other: Scene = { ...scene, effect: 'grayscale' };
  return Buffer.compare(render(other), render(scene)) === 0 ? scene : other;
}

let drawn = 0;
for (; drawn < Number(values.draws) && performance.now() < until; drawn++) {
  const { context, prompt, target } = sampleEdit(random, KINDS[drawn % KINDS.length]!);
  const seed = Math.floor(random() * 2 ** 32);
  for (const { storage, adapter, answers } of rows) {
    const kontext = engines.get(storage)!;
    const options = { prompt, seed, ...(adapter === 'without' && { adapters: [] }) };
    const { image } = context
      ? await kontext.edit({ ...options, image: picture(context) })
      : await kontext.generate(options);
    answers.push(judge(image, adapter === 'with' ? grey(target) : target));
  }
  process.stderr.write(`${drawn + 1}: ${rows.map(({ answers }) => Number(answers.at(-1)!.right)).join(' ')}\n`);
}
for (const kontext of engines.values()) await kontext.close();

console.log('| stored | adapter | right (95 %) | PSNR to the true answer |\n| --- | --- | --- | --- |');
for (const { storage, adapter, answers } of rows) {
  const right = answers.filter((answer) => answer.right).length;
  const [low, high] = wilson(right, answers.length);
  const decibels = mean(answers.map(({ psnr }) => psnr));
  console.log(
    `| ${storage} | ${adapter} | ${right} of ${answers.length} (${percent(low)} to ${percent(high)}) | ${decibels.toFixed(1)} dB |`,
  );
}
console.log(
  `\n${drawn} scenes, the same for every row, of ${KINDS.join(', ')} in turn; seed ${values.seed}, 12 steps.`,
);
