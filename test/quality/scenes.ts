// Emoji scenes of 64x64 pixels with instruction edits whose true answer is known: the demo model's task, without Python.
// Pictures equal examples/demo-model/recipe/scenes.py byte for byte (test/unit/quality/scenes.test.ts), so figures are comparable.
import { readFileSync } from 'node:fs';
import sharp from 'sharp';

export const SCENE_SIZE = 64;
const SMALL = 26;
const BIG = 44;

const COLOURS = {
  red: [214, 60, 60],
  orange: [240, 150, 50],
  yellow: [245, 220, 90],
  green: [90, 180, 90],
  blue: [80, 130, 220],
  purple: [150, 90, 190],
  pink: [245, 160, 190],
  white: [245, 245, 245],
  black: [30, 30, 34],
} as const;
const PLACES = { left: 18, center: 32, right: 46 } as const;

export type Background = keyof typeof COLOURS;
export type Place = keyof typeof PLACES;
export type Effect = 'none' | 'grayscale' | 'negative';

/** A flat background and at most one emoji. `size` is the emoji's width in pixels; without a thing, place and size are ignored. */
export interface Scene {
  readonly background: Background;
  readonly thing: string | undefined;
  readonly place: Place;
  readonly size: typeof SMALL | typeof BIG;
  readonly effect: Effect;
}

/** The kinds of edit with the share of each in the training data. */
export const KIND_SHARES = {
  generate: 0.2,
  background: 0.16,
  replace: 0.18,
  remove: 0.08,
  add: 0.12,
  move: 0.1,
  resize: 0.06,
  grayscale: 0.05,
  negative: 0.05,
} as const;
export type EditKind = keyof typeof KIND_SHARES;
export const EDIT_KINDS = Object.keys(KIND_SHARES) as EditKind[];

/** One task: `context` is undefined for text-to-image; `target` is the one right answer. */
export interface SceneEdit {
  readonly kind: EditKind;
  readonly context: Scene | undefined;
  readonly prompt: string;
  readonly target: Scene;
}

/** Draws an edit of the given kind. `random` returns numbers in [0, 1); the same sequence gives the same edit. */
export function sampleEdit(random: () => number, kind: EditKind): SceneEdit {
  if (kind === 'generate') {
    const target = randomScene(random, false);
    const what = `a ${sizeWord(target)}${target.thing}${placeWords(target)}`;
    const ground = `${withArticle(target.background)} background`;
    return {
      kind,
      context: undefined,
      prompt: pick(random, [`${what} on ${ground}`, `${ground} with ${what}`]),
      target,
    };
  }
  const drawn = randomScene(random, kind === 'move');
  return editOf(random, kind, kind === 'resize' ? { ...drawn, place: 'center' } : drawn);
}

/** An edit of `kind` of exactly this scene, for sessions of several turns. The scene must have a thing and no effect. */
export function editOf(random: () => number, kind: Exclude<EditKind, 'generate'>, scene: Scene): SceneEdit {
  const thing = scene.thing;
  if (thing === undefined || scene.effect !== 'none') throw new Error(`No ${kind} edit of ${describe(scene)}`);
  const edit = (context: Scene, target: Scene, ...prompts: string[]): SceneEdit => ({
    kind,
    context,
    prompt: pick(random, prompts),
    target,
  });
  switch (kind) {
    case 'background': {
      const b = pickOther(random, Object.keys(COLOURS) as Background[], scene.background);
      const target = { ...scene, background: b };
      return edit(
        scene,
        target,
        `make the background ${b}`,
        `change the background to ${b}`,
        `turn the background ${b}`,
      );
    }
    case 'replace': {
      const other = pickOther(random, objects, thing);
      const a = withArticle(other);
      const prompts = [`replace the ${thing} with ${a}`, `turn the ${thing} into ${a}`, `change the ${thing} to ${a}`];
      return edit(scene, { ...scene, thing: other }, ...prompts, `make it ${a}`);
    }
    case 'remove':
      return edit(scene, empty(scene.background), `remove the ${thing}`, `delete the ${thing}`, `erase the ${thing}`);
    case 'add': {
      const what = `a ${sizeWord(scene)}${thing}${placeWords(scene)}`;
      return edit(empty(scene.background), scene, `add ${what}`, `put ${what}`);
    }
    case 'move': {
      const target = { ...scene, place: pickOther(random, Object.keys(PLACES) as Place[], scene.place) };
      return edit(scene, target, `move the ${thing} to the ${target.place}`, `put the ${thing}${placeWords(target)}`);
    }
    case 'resize': {
      const target: Scene = { ...scene, size: scene.size === SMALL ? BIG : SMALL };
      return edit(scene, target, `make the ${thing} ${target.size === BIG ? 'bigger' : 'smaller'}`);
    }
    case 'grayscale':
      return edit(scene, { ...scene, effect: kind }, 'make it black and white', 'convert it to grayscale');
    case 'negative':
      return edit(scene, { ...scene, effect: kind }, 'invert the colors', 'make it a photo negative');
  }
}

/** Every scene there is (2,619), in the order of the Python recipe. */
export function* allScenes(): Generator<Scene> {
  for (const background of Object.keys(COLOURS) as Background[])
    for (const effect of ['none', 'grayscale', 'negative'] as const) {
      yield { ...empty(background), effect };
      for (const thing of objects) {
        yield { background, thing, place: 'center', size: BIG, effect };
        for (const place of Object.keys(PLACES) as Place[]) yield { background, thing, place, size: SMALL, effect };
      }
    }
}

/** The scene's picture: RGB bytes, rows first, `SCENE_SIZE` x `SCENE_SIZE` x 3. */
export function render(scene: Scene): Uint8Array {
  const pixels = new Uint8Array(SCENE_SIZE * SCENE_SIZE * 3);
  const ground = COLOURS[scene.background];
  for (let i = 0; i < pixels.length; i++) pixels[i] = ground[i % 3]!;
  if (scene.thing !== undefined) paste(pixels, scene.thing, scene.size, PLACES[scene.place]);
  if (scene.effect === 'grayscale') {
    for (let i = 0; i < pixels.length; i += 3) {
      // Pillow's integer luma (ITU-R 601-2, 16 bits of fraction).
      const luma = (pixels[i]! * 19595 + pixels[i + 1]! * 38470 + pixels[i + 2]! * 7471 + 0x8000) >> 16;
      pixels.fill(luma, i, i + 3);
    }
  } else if (scene.effect === 'negative') {
    for (let i = 0; i < pixels.length; i++) pixels[i] = 255 - pixels[i]!;
  }
  return pixels;
}

/** The scene whose picture has the smallest squared distance to `image` (RGB bytes of the scenes' size), and that mean squared error. */
export function nearestScene(image: Uint8Array): { scene: Scene; meanSquaredError: number } {
  everyPicture ??= renderAll();
  const { scenes, pictures } = everyPicture;
  const length = SCENE_SIZE * SCENE_SIZE * 3;
  if (image.length !== length) throw new Error(`An image of ${image.length} bytes; scenes have ${length}`);
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let s = 0; s < scenes.length; s++) {
    let sum = 0;
    // Row by row, so that most scenes are given up early.
    for (let row = 0; row < SCENE_SIZE && sum < least; row++) {
      const from = row * SCENE_SIZE * 3;
      for (let i = from; i < from + SCENE_SIZE * 3; i++) sum += (image[i]! - pictures[s * length + i]!) ** 2;
    }
    if (sum < least) [best, least] = [s, sum];
  }
  return { scene: scenes[best]!, meanSquaredError: least / length };
}

/** Same picture by construction: an empty scene has no place or size. */
export function sameScene(a: Scene, b: Scene): boolean {
  if (a.background !== b.background || a.effect !== b.effect || a.thing !== b.thing) return false;
  return a.thing === undefined || (a.place === b.place && a.size === b.size);
}

/** A short name of a scene for reports. */
export function describe(scene: Scene): string {
  const thing = scene.thing === undefined ? 'nothing' : `${sizeWord(scene)}${scene.thing}${placeWords(scene)}`;
  return `${thing} on ${scene.background}${scene.effect === 'none' ? '' : ` in ${scene.effect}`}`;
}

/** mulberry32: a small seeded generator of numbers in [0, 1), so that draws are the same everywhere. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

interface SpriteSheet {
  readonly rgba: Uint8Array;
  readonly width: number;
}

const folder = new URL('scene-pictures/', import.meta.url);
const { objects } = JSON.parse(readFileSync(new URL('scenes.json', folder), 'utf8')) as { objects: readonly string[] };
const sheets: Record<Scene['size'], SpriteSheet> = {
  [SMALL]: await readSheet('small.png'),
  [BIG]: await readSheet('big.png'),
};
let everyPicture: { scenes: Scene[]; pictures: Uint8Array } | undefined;

async function readSheet(name: string): Promise<SpriteSheet> {
  const { data, info } = await sharp(readFileSync(new URL(name, folder)))
    .raw()
    .toBuffer({ resolveWithObject: true });
  if (info.channels !== 4) throw new Error(`${name} has ${info.channels} channels instead of RGBA`);
  return { rgba: data, width: info.width };
}

function renderAll(): { scenes: Scene[]; pictures: Uint8Array } {
  const scenes = [...allScenes()];
  const pictures = new Uint8Array(scenes.length * SCENE_SIZE * SCENE_SIZE * 3);
  scenes.forEach((scene, i) => {
    pictures.set(render(scene), i * SCENE_SIZE * SCENE_SIZE * 3);
  });
  return { scenes, pictures };
}

function paste(pixels: Uint8Array, thing: string, size: Scene['size'], centre: number): void {
  const at = objects.indexOf(thing);
  if (at < 0) throw new Error(`There is no picture of "${thing}"`);
  const { rgba, width } = sheets[size];
  const left = centre - size / 2;
  const top = SCENE_SIZE / 2 - size / 2;
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const from = (y * width + at * size + x) * 4;
      const to = ((top + y) * SCENE_SIZE + left + x) * 3;
      const alpha = rgba[from + 3]!;
      for (let c = 0; c < 3; c++) {
        // Pillow's rounded division by 255.
        const mixed = rgba[from + c]! * alpha + pixels[to + c]! * (255 - alpha) + 128;
        pixels[to + c] = ((mixed >> 8) + mixed) >> 8;
      }
    }
}

function randomScene(random: () => number, small: boolean): Scene {
  const size = small ? SMALL : pick(random, [SMALL, BIG] as const);
  const place = size === BIG ? 'center' : pick(random, Object.keys(PLACES) as Place[]);
  const background = pick(random, Object.keys(COLOURS) as Background[]);
  return { background, thing: pick(random, objects), place, size, effect: 'none' };
}

function empty(background: Background): Scene {
  return { background, thing: undefined, place: 'center', size: SMALL, effect: 'none' };
}

function sizeWord(scene: Scene): string {
  return scene.size === SMALL ? 'small ' : 'big ';
}

function placeWords(scene: Scene): string {
  return scene.place === 'center' ? ' in the center' : ` on the ${scene.place}`;
}

function withArticle(word: string): string {
  return `${'aeiou'.includes(word[0]!) ? 'an' : 'a'} ${word}`;
}

function pick<T>(random: () => number, values: readonly T[]): T {
  return values[Math.floor(random() * values.length)]!;
}

function pickOther<T>(random: () => number, values: readonly T[], not: T): T {
  return pick(
    random,
    values.filter((v) => v !== not),
  );
}
