// Ten edits in a row: how far untouched pixels drift, with and without the first picture as an anchor.
import { toRgb } from '../../../sdk/src/image/pixels.ts';
import type { KontextEngine } from '../../../sdk/src/node.ts';
import { drift, judge, mean, percent, picture, wilson } from '../judge.ts';
import { editOf, render, SCENE_SIZE, sampleEdit, seededRandom } from '../scenes.ts';

const TURNS = 10;
/** They keep an object that later turns can edit. */
const TURN_KINDS = ['background', 'replace', 'move', 'resize'] as const;

interface Turn {
  right: boolean;
  drift: number;
}

/** Both chains get the same instructions and seeds. @returns a Markdown table and the numbers */
export async function anchorStudy(
  kontext: KontextEngine,
  { scenes, seed, minutes }: { scenes: number; seed: number; minutes: number },
): Promise<{ table: string; rows: object[] }> {
  const random = seededRandom(seed);
  const until = performance.now() + minutes * 60_000;
  const chains: Record<'plain' | 'anchored', Turn[][]> = { plain: [], anchored: [] };
  for (let i = 0; i < scenes && performance.now() < until; i++) {
    // A start with an object in the middle: the first turn may then be of any kind.
    const start = sampleEdit(random, 'resize').context!;
    const turns: { prompt: string; seed: number; truth: typeof start }[] = [];
    for (let turn = 0, truth = start; turn < TURNS; turn++) {
      const kinds = TURN_KINDS.filter((kind) => kind !== 'resize' || truth.place === 'center');
      const possible = kinds.filter((kind) => kind !== 'move' || truth.size < 30);
      const edit = editOf(random, possible[Math.floor(random() * possible.length)]!, truth);
      truth = edit.target;
      turns.push({ prompt: edit.prompt, seed: Math.floor(random() * 2 ** 32), truth });
    }
    for (const [name, anchor] of [
      ['plain', false],
      ['anchored', true],
    ] as const) {
      const session = kontext.session(picture(start));
      const untouched = new Uint8Array(SCENE_SIZE * SCENE_SIZE).fill(1);
      const chain: Turn[] = [];
      for (const { prompt, seed: own, truth } of turns) {
        const { image } = await session.edit(prompt, { seed: own, anchor });
        const { right } = judge(image, truth);
        chain.push({ right, drift: drift(render(start), toRgb(image), render(truth), untouched) });
      }
      chains[name].push(chain);
    }
    process.stderr.write(`${i + 1} sessions\n`);
  }
  const n = chains.plain.length;
  const rows = Array.from({ length: TURNS }, (_, turn) => {
    const of = (name: keyof typeof chains) => {
      const turns = chains[name].map((chain) => chain[turn]!);
      const right = turns.filter((one) => one.right).length;
      return { right: right / n, range: wilson(right, n), drift: mean(turns.map((one) => one.drift)) };
    };
    return { turn: turn + 1, plain: of('plain'), anchored: of('anchored') };
  });
  const cells = ({ right, range, drift: d }: (typeof rows)[number]['plain']) =>
    `${percent(right)} (${percent(range[0])} to ${percent(range[1])}) | ${d.toFixed(2)}`;
  const lines = rows.map(({ turn, plain, anchored }) => `| ${turn} | ${cells(plain)} | ${cells(anchored)} |`);
  const head =
    '| turn | right (95 %) | drift | right with anchor (95 %) | drift with anchor |\n| --- | --- | --- | --- | --- |';
  return {
    table: `${head}\n${lines.join('\n')}\n\n${n} sessions. Drift: grey levels of 255 over untouched pixels.`,
    rows,
  };
}
