// `npm run fuzz`: the long run. --count N inputs for each reader (default 1,000,000), --seed S (default from the clock), --only NAME,
// --input N for one input again.
import { parseArgs } from 'node:util';
import { fuzz } from './fuzz.ts';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 32) },
    only: { type: 'string', default: '' },
    input: { type: 'string' },
  },
});
const seed = Number(values.seed);
const count = values.input === undefined ? Number(values.count) : 1;
console.log(`seed ${seed}, ${count} inputs for each reader`);
const columns = (cells: (string | number)[]) =>
  console.log(cells.map((cell, i) => (i === 0 ? String(cell).padEnd(28) : String(cell).padStart(11))).join(' '));
columns(['reader', 'tried', 'taken', 'refused', 'lost', 'seconds']);
let started = performance.now();
const tallies = await fuzz(seed, count, {
  only: values.only,
  first: Number(values.input ?? 0),
  onTally: ({ target, tried, taken, refused, losses }) => {
    columns([target, tried, taken, refused, losses.length, ((performance.now() - started) / 1000).toFixed(0)]);
    started = performance.now();
    for (const { input, what } of losses.slice(0, 5)) console.log(`  --only '${target}' --input ${input}: ${what}`);
  },
});
const sum = (of: 'tried' | 'taken' | 'refused') => tallies.reduce((total, tally) => total + tally[of], 0);
const lost = tallies.reduce((total, { losses }) => total + losses.length, 0);
columns(['all', sum('tried'), sum('taken'), sum('refused'), lost]);
process.exitCode = lost > 0 ? 1 : 0;
