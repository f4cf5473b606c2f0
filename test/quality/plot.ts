// Draws a study as a picture: evaluations spared against likeness to the whole run, right answers beside each point.
// `npm run quality:plot -- out/quality/cache.json docs/pictures/cache.svg` after `npm run quality -- --study cache`.
import { readFile, writeFile } from 'node:fs/promises';
import { percent } from './judge.ts';
import type { Row } from './study.ts';

const [from, to] = process.argv.slice(2);
if (!from || !to) throw new Error('Give the JSON of a study and the SVG to write.');
const { rows } = JSON.parse(await readFile(from, 'utf8')) as { rows: Row[] };

const [WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM] = [760, 420, 64, 24, 150, 56];
const [first, ...others] = rows as [Row, ...Row[]];
const levels = others.map(({ same }) => same);
const low = Math.floor(Math.min(...levels) / 5 - 0.2) * 5;
const high = Math.ceil(Math.max(...levels) / 5) * 5;
const most = Math.ceil(Math.max(...others.map(({ evaluations }) => first.evaluations / evaluations)) + 0.2);
const x = (speed: number): number => LEFT + ((speed - 1) / (most - 1)) * (WIDTH - LEFT - RIGHT);
const y = (level: number): number => TOP + ((high - level) / Math.max(1, high - low)) * (HEIGHT - TOP - BOTTOM);

const text = (at: [number, number], words: string, more = ''): string =>
  `<text x="${at[0].toFixed(1)}" y="${at[1].toFixed(1)}" ${more}>${words}</text>`;
const line = (a: [number, number], b: [number, number]): string =>
  `<path d="M${a.map((v) => v.toFixed(1))} L${b.map((v) => v.toFixed(1))}" stroke="#ccc"/>`;
const grid: string[] = [];
for (let level = low; level <= high; level += 5) {
  grid.push(line([LEFT, y(level)], [WIDTH - RIGHT, y(level)]));
  grid.push(text([LEFT - 8, y(level) + 4], `${level} dB`, 'text-anchor="end"'));
}
for (let speed = 1; speed <= most; speed++) {
  grid.push(line([x(speed), TOP], [x(speed), HEIGHT - BOTTOM]));
  grid.push(text([x(speed), HEIGHT - BOTTOM + 18], `×${speed}`, 'text-anchor="middle"'));
}
const labels: [number, number][] = [];
const points = others.map(({ name, evaluations, same, right, lost }) => {
  const at: [number, number] = [x(first.evaluations / evaluations), y(same)];
  const colour = name.startsWith('taylor') ? '#c2410c' : '#1d4ed8';
  const words = `${name}: ${percent(right)}${lost > 0 ? `, ${lost} lost` : ''}`;
  // Beside its point, or the nearest place above or below where no other label is.
  const free = (top: number): boolean =>
    labels.every(([left, other]) => Math.abs(left - at[0]) > 136 || Math.abs(top - other) >= 12);
  const top = [0, 12, -12, 24, -24, 36, -36, 48, -48, 60].map((by) => at[1] + by).find(free) ?? at[1];
  labels.push([at[0], top]);
  const label = text([at[0] + 8, top + 4], words);
  return `<circle cx="${at[0].toFixed(1)}" cy="${at[1].toFixed(1)}" r="4" fill="${colour}"/>${label}`;
});
const middle = (LEFT + WIDTH - RIGHT) / 2;
const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="11" fill="#222">
<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>
${[...grid, ...points].join('\n')}
${text([middle, HEIGHT - 16], 'how many times fewer whole evaluations', 'text-anchor="middle" font-size="12"')}
${text([LEFT, TOP - 8], `PSNR to the picture of all steps; share of right answers (${first.n} scenes, without a cache ${percent(first.right)})`)}
</svg>
`;
await writeFile(to, svg);
console.log(`Wrote ${to}`);
