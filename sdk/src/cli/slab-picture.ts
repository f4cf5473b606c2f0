// A program's memory over time as a picture: slabs as bands, dispatches from left to right, a box for each value.
// Colours and greys are readable on light and on dark ground, because nobody knows where the file will be shown.
import type { Program } from '../../../runtime/src/program/types.ts';
import { type SlabValue, slabValues } from './slab-values.ts';

const WIDTH = 1200;
/** Of the bands; one never falls below the height of its label. */
const HEIGHT = 420;
const LEFT = 96;
const RIGHT = 16;
const TOP = 62;
const GAP = 14;
const LEAST = 16;

/** 4.5 : 1 against white and against black. */
const GREY = '#767676';

/** Okabe and Ito's colours, told apart also by the colour-blind; families beyond them share the last. */
const COLOURS = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#999999'];

export function slabPicture(program: Program): string {
  const values = slabValues(program);
  const steps = Math.max(1, program.dispatches.length);
  const total = Math.max(
    1,
    program.slabs.reduce((sum, bytes) => sum + bytes, 0),
  );
  const x = (step: number) => LEFT + (step / steps) * (WIDTH - LEFT - RIGHT);
  let bottom = TOP;
  const bands = program.slabs.map((bytes, i) => {
    const height = Math.max(LEAST, (bytes / total) * HEIGHT);
    const band = { top: bottom, height, bytes, i };
    bottom += height + GAP;
    return band;
  });
  const families = [...new Set(values.map(({ family }) => family))];
  const colour = (family: string) => COLOURS[Math.min(families.indexOf(family), COLOURS.length - 1)]!;
  const box = (value: SlabValue): string => {
    const { top, height, bytes } = bands[value.slab]!;
    const name = escaped(`${value.label}, ${mib(value.bytes)}, dispatches ${value.first} to ${value.last}`);
    const place = rectangle(
      x(value.first),
      top + (value.offset / bytes) * height,
      x(value.last + 1) - x(value.first),
      (value.bytes / bytes) * height,
    );
    return `<rect ${place} fill="${colour(value.family)}"><title>${name}</title></rect>`;
  };
  const frames = bands.flatMap(({ top, height, bytes, i }) => [
    `<rect ${rectangle(LEFT, top, WIDTH - LEFT - RIGHT, height)} fill="none" stroke="${GREY}"/>`,
    text(LEFT - 8, top + height / 2 + 4, `slab ${i}, ${mib(bytes)}`, 'end'),
  ]);
  const axisY = bottom - GAP + 6;
  const axis = ticks(steps).flatMap((step) => [
    `<path d="M${x(step).toFixed(1)} ${axisY}v6" stroke="${GREY}"/>`,
    text(x(step), axisY + 20, `${step}`, 'middle'),
  ]);
  let at = LEFT;
  const legend = families.flatMap((family) => {
    const parts = [
      `<rect ${rectangle(at, 38, 12, 12)} fill="${colour(family)}"/>`,
      text(at + 17, 48, `written by ${family}`, 'start'),
    ];
    at += 17 + 7 * (family.length + 14);
    return parts;
  });
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${Math.ceil(axisY + 48)}" font-family="sans-serif" font-size="12" fill="${GREY}">`,
    `<title>${escaped(program.label)}</title>`,
    text(LEFT, 22, `${program.label}: ${mib(total)} of activations in ${program.slabs.length} slabs`, 'start', 15),
    ...legend,
    ...values.map(box),
    ...frames,
    ...axis,
    text((LEFT + WIDTH - RIGHT) / 2, axisY + 40, 'dispatch', 'middle'),
    '</svg>',
  ];
  return `${lines.join('\n')}\n`;
}

/** How full each slab is over time, a line each, in as many columns as fit a terminal. */
export function slabTable(program: Program): string[] {
  const values = slabValues(program);
  const steps = program.dispatches.length;
  const columns = Math.min(60, steps);
  const rows = program.slabs.map((bytes, slab) => {
    const mine = values.filter((value) => value.slab === slab);
    const used = Array.from({ length: columns }, (_, column) => {
      const [from, to] = [column, column + 1].map((edge) => Math.floor((edge * steps) / columns));
      return mine
        .filter(({ first, last }) => first < to! && last >= from!)
        .reduce((most, { offset, bytes }) => Math.max(most, offset + bytes), 0);
    });
    const bars = used.map((end) => LEVELS[Math.ceil((end / bytes) * (LEVELS.length - 1))]).join('');
    return `${`${slab}`.padStart(4)} ${(bytes / 2 ** 20).toFixed(1).padStart(10)} ${`${mine.length}`.padStart(7)}  ${bars}`;
  });
  return [`slab        MiB  values  filled up to, from the first dispatch to the last`, ...rows];
}

const LEVELS = ' ▁▂▃▄▅▆▇█';

/** About ten round numbers from 0. */
function ticks(steps: number): number[] {
  const rough = steps / 10;
  const unit = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
  const step = unit * [1, 2, 5, 10].find((factor) => unit * factor >= rough)!;
  return Array.from({ length: Math.floor(steps / step) + 1 }, (_, i) => i * step);
}

function rectangle(x: number, y: number, width: number, height: number): string {
  return `x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}"`;
}

function text(x: number, y: number, words: string, anchor: 'start' | 'middle' | 'end', size?: number): string {
  const font = size === undefined ? '' : ` font-size="${size}"`;
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}"${font}>${escaped(words)}</text>`;
}

const mib = (bytes: number): string => {
  const amount = bytes / 2 ** 20;
  return `${amount >= 10 ? amount.toFixed(0) : amount.toPrecision(2)} MiB`;
};

const escaped = (words: string): string => words.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
