// What bounds checks cost: the same edits with and without them, in turn, in one process. `npm run bench:robustness`
// Programs compiled here and signed bundles run without; bundles that nobody signed run with them (Node; pages always check).
import { demoModel, Kontext } from '../../sdk/src/node.ts';

const rounds = Number(process.argv[2] ?? 7);
const image = { width: 64, height: 64, data: new Uint8ClampedArray(64 * 64 * 4).fill(160) };
const request = { image, prompt: 'make the background blue', steps: 4, seed: 7 };
const engines = {
  unchecked: await Kontext.load(demoModel(), { memory: 'resident' }),
  robust: await Kontext.load(demoModel(), { memory: 'resident', device: { unchecked: false } }),
};
type Name = keyof typeof engines;
const times: Record<Name, number[]> = { unchecked: [], robust: [] };
for (const kontext of Object.values(engines)) await kontext.edit(request);
for (let round = 0; round < rounds; round++) {
  const names = Object.keys(engines) as Name[];
  for (const name of round % 2 === 0 ? names : names.reverse()) {
    times[name].push((await engines[name].edit(request)).timings.denoiseMs);
  }
}
const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;
const [unchecked, robust] = [median(times.unchecked), median(times.robust)];
console.log(
  `${engines.robust.adapter?.description}: denoising ${unchecked.toFixed(0)} ms without, ${robust.toFixed(0)} ms with bounds checks ` +
    `(${((robust / unchecked - 1) * 100).toFixed(0)} %; medians of ${rounds})`,
);
process.exit(0);
