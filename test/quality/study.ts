// One study: the same scenes and seeds under several settings, so that settings are compared scene by scene.
// Scenes are drawn one after the other and every setting sees each before the next is drawn: stopping early only makes n smaller.
import type { PixelImage } from '../../sdk/src/image/pixels.ts';
import { toRgb } from '../../sdk/src/image/pixels.ts';
import type { EditRequest, KontextEngine } from '../../sdk/src/node.ts';
import { decibels, judge, mean, median, percent, picture, wilson } from './judge.ts';
import { EDIT_KINDS, type EditKind, type Scene, sampleEdit, seededRandom } from './scenes.ts';

/** A drawn task: the picture, what to do, and what is right. */
export interface Task {
  kind: EditKind;
  image: PixelImage;
  prompt: string;
  seed: number;
  context: Scene;
  target: Scene;
}

/** Options under test. */
export interface Setting {
  name: string;
  /** What differs from a plain edit of the task. */
  options: (task: Task) => Partial<EditRequest>;
}

export interface Study {
  /** What is asked, in one sentence, and how the answer is to be read. */
  about: string;
  /** Of edits; all but those from nothing by default. */
  kinds?: readonly EditKind[];
  /** The first is what the others are compared with. */
  settings: readonly Setting[];
}

/** One setting on one scene. */
interface Answer {
  right: boolean;
  psnr: number;
  /** To the first setting's picture. */
  same: number;
  evaluations: number;
  ms: number;
}

/** What came out of a setting. */
export interface Row {
  name: string;
  n: number;
  right: number;
  range: [number, number];
  /** Scenes that the first setting had right and this one has not, and the other way round. */
  lost: number;
  won: number;
  /** Means, dB. */
  psnr: number;
  same: number;
  /** Whole evaluations of the transformer for an edit, mean. */
  evaluations: number;
  /** Median of the denoising, beside the first setting's on the same scene. */
  time: number;
}

export interface StudyOptions {
  scenes: number;
  seed: number;
  minutes: number;
}

/** Runs every setting on the same scenes. */
export async function runStudy(kontext: KontextEngine, study: Study, options: StudyOptions): Promise<Row[]> {
  const random = seededRandom(options.seed);
  const kinds = study.kinds ?? EDIT_KINDS.filter((kind) => kind !== 'generate');
  const until = performance.now() + options.minutes * 60_000;
  const answers: Answer[][] = study.settings.map(() => []);
  for (let i = 0; i < options.scenes && performance.now() < until; i++) {
    const { context, prompt, target, kind } = sampleEdit(random, kinds[i % kinds.length]!);
    const seed = Math.floor(random() * 2 ** 32);
    const task: Task = { kind, image: picture(context!), prompt, seed, context: context!, target };
    let first: Uint8Array | undefined;
    for (const [s, { options: extra }] of study.settings.entries()) {
      const { image, timings, evaluated } = await edit(kontext, task, extra(task));
      const rgb = toRgb(image);
      first ??= rgb;
      const same = decibels(rgb, first);
      answers[s]!.push({ ...judge(image, target), same, evaluations: evaluated, ms: timings.denoiseMs });
    }
    if ((i + 1) % 5 === 0) {
      const now = answers.map((of) => of.filter(({ right }) => right).length).join(' ');
      process.stderr.write(`${i + 1} scenes; right: ${now}\n`);
    }
  }
  return study.settings.map(({ name }, s) => rowOf(name, answers[s]!, answers[0]!));
}

/** An edit, and how often the transformer was evaluated whole. */
async function edit(kontext: KontextEngine, { image, prompt, seed }: Task, options: Partial<EditRequest>) {
  const result = await kontext.edit({ image, prompt, seed, ...options });
  const { variants = 1, variantSteps } = options;
  const steps = variantSteps ?? Math.ceil(result.options.steps / 4);
  const before = variants > 1 ? (variants - 1) * steps : 0;
  return { ...result, evaluated: result.evaluations + before - (result.skipped ?? 0) };
}

function rowOf(name: string, answers: readonly Answer[], first: readonly Answer[]): Row {
  const right = answers.filter((answer) => answer.right).length;
  return {
    name,
    n: answers.length,
    right: right / answers.length,
    range: wilson(right, answers.length),
    lost: answers.filter((answer, i) => !answer.right && first[i]!.right).length,
    won: answers.filter((answer, i) => answer.right && !first[i]!.right).length,
    psnr: mean(answers.map(({ psnr }) => psnr)),
    same: mean(answers.map(({ same }) => same)),
    evaluations: mean(answers.map(({ evaluations }) => evaluations)),
    time: median(answers.map(({ ms }, i) => ms / first[i]!.ms)),
  };
}

/** As a Markdown table. */
export function tableOf(rows: readonly Row[]): string {
  const head = [
    'setting',
    'evaluations',
    'right (95 %)',
    'lost, won',
    'PSNR to the answer',
    'to the first row',
    'time',
  ];
  const lines = rows.map(({ name, right, range, lost, won, psnr, same, evaluations, time }, i) => [
    name,
    evaluations.toFixed(1),
    `${percent(right)} (${percent(range[0])} to ${percent(range[1])})`,
    i === 0 ? '' : `${lost}, ${won}`,
    `${psnr.toFixed(1)} dB`,
    i === 0 ? '' : `${same.toFixed(1)} dB`,
    `×${time.toFixed(2)}`,
  ]);
  return [head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
