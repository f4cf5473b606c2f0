// The strip of pictures: one button each, the shown one marked and scrolled into sight. Where something else was tried from the same picture,
// a small button below says which of the ways this is and leads to the next.
// Thumbnails are drawn once and kept with their picture, however large it is.
import { toCanvas } from '../image/browser.ts';
import type { PixelImage } from '../image/pixels.ts';
import type { Mask } from './mask-editor.ts';
import type { KontextEditorStrings } from './strings.ts';

/** A picture of the history. */
export interface Entry {
  image: PixelImage;
  /** What made it. */
  title: string;
  thumbnail?: HTMLCanvasElement;
  /** Drawn on it: where the next edit may change it. */
  mask?: Mask;
}

/** A picture in the strip. */
export interface Step {
  id: number;
  entry: Entry;
  /** Which of the ways from the picture before it is, from 0, and of how many. */
  way: number;
  ways: number;
  /** The first picture of the way after this one. */
  other: number;
}

/** Device pixels of a thumbnail's longer side: 56 CSS pixels on a fine screen. */
const THUMBNAIL = 112;

/**
 * @param position the id of the one that is shown
 * @param shown the canvas that it is drawn on already
 * @param go called with the id of a picture that was asked for
 */
export function renderHistory(
  list: HTMLOListElement,
  steps: readonly Step[],
  position: number,
  shown: HTMLCanvasElement,
  strings: Pick<KontextEditorStrings, 'way'>,
  go: (id: number) => void,
): void {
  const root = list.getRootNode() as ShadowRoot;
  const focused = list.contains(root.activeElement) ? root.activeElement : null;
  list.replaceChildren(
    ...steps.map((step, i) => {
      const { id, entry } = step;
      const button = buttonOf(entry.title, `${i}: ${entry.title}`, () => go(id));
      if (id === position) button.setAttribute('aria-current', 'step');
      // Each is shown when it comes, so its pixels need not be brought to a canvas again.
      entry.thumbnail ??= thumbnailOf(id === position ? shown : toCanvas(entry.image));
      button.append(entry.thumbnail);
      const item = document.createElement('li');
      item.append(button);
      if (step.ways > 1) item.append(wayButton(step, strings, go));
      return item;
    }),
  );
  const current = list.querySelector<HTMLElement>('[aria-current]');
  if (!current) return;
  const way = current.parentElement!.querySelector<HTMLElement>('.way');
  // Going from way to way by keyboard, the next press goes on from where it led.
  if (focused) (focused.classList.contains('way') && way ? way : current).focus({ preventScroll: true });
  bringIntoSight(list, current);
}

function wayButton({ way, ways, other }: Step, strings: Pick<KontextEditorStrings, 'way'>, go: (id: number) => void) {
  const words = strings.way(way + 1, ways);
  const shown = `${way + 1}/${ways}`;
  // Who speaks to the page says what is to be seen, so the name begins with it (WCAG 2.5.3).
  const button = buttonOf(words, `${shown}: ${words}`, () => go(other));
  button.className = 'way';
  button.textContent = shown;
  return button;
}

function buttonOf(title: string, label: string, press: () => void): HTMLButtonElement {
  const button = document.createElement('button');
  button.type = 'button';
  button.title = title;
  button.ariaLabel = label;
  button.addEventListener('click', press);
  return button;
}

/** Scrolls the strip alone, in both writing directions; `scrollIntoView` would move the page as well. */
function bringIntoSight(list: HTMLElement, item: HTMLElement): void {
  const [outer, inner] = [list.getBoundingClientRect(), item.getBoundingClientRect()];
  const distance = (low: number, high: number, from: number, to: number) =>
    from < low ? from - low : to > high ? to - high : 0;
  list.scrollBy({
    left: distance(outer.left, outer.right, inner.left - 4, inner.right + 4),
    top: distance(outer.top, outer.bottom, inner.top - 4, inner.bottom + 4),
  });
}

function thumbnailOf(image: HTMLCanvasElement | OffscreenCanvas): HTMLCanvasElement {
  const scale = Math.min(1, THUMBNAIL / Math.max(image.width, image.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext('2d')!;
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}
