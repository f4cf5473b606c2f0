// The strip of pictures: one button each, the shown one marked and scrolled into sight.
// Thumbnails are drawn once and kept with their picture, however large it is.
import { toCanvas } from '../image/browser.ts';
import type { PixelImage } from '../image/pixels.ts';
import type { Mask } from './mask-editor.ts';

/** A picture of the history. */
export interface Entry {
  image: PixelImage;
  /** What made it. */
  title: string;
  thumbnail?: HTMLCanvasElement;
  /** Drawn on it: where the next edit may change it. */
  mask?: Mask;
}

/** Device pixels of a thumbnail's longer side: 56 CSS pixels on a fine screen. */
const THUMBNAIL = 112;

/**
 * @param shown the canvas that the picture at `position` is drawn on already
 * @param go called with the index of a picture that was clicked
 */
export function renderHistory(
  list: HTMLOListElement,
  entries: readonly Entry[],
  position: number,
  shown: HTMLCanvasElement,
  go: (index: number) => void,
): void {
  const root = list.getRootNode() as ShadowRoot;
  const hadFocus = list.contains(root.activeElement);
  list.replaceChildren(
    ...entries.map((entry, i) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.title = entry.title;
      button.ariaLabel = `${i}: ${entry.title}`;
      if (i === position) button.setAttribute('aria-current', 'step');
      // Each is shown when it comes, so its pixels need not be brought to a canvas again.
      entry.thumbnail ??= thumbnailOf(i === position ? shown : toCanvas(entry.image));
      button.append(entry.thumbnail);
      button.addEventListener('click', () => go(i));
      const item = document.createElement('li');
      item.append(button);
      return item;
    }),
  );
  const current = list.children[position]?.firstElementChild as HTMLElement | null | undefined;
  if (!current) return;
  if (hadFocus) current.focus({ preventScroll: true });
  bringIntoSight(list, current);
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
