// Draws a mask over the picture: brush, eraser and rectangle, by pointer and by keyboard. Loaded when it is first asked for.
// The overlay is striped in two colours, so that it shows on any picture.
import type { Face } from './face.ts';
import { drawStrokes, type MaskTool, maskOf, type Stroke } from './mask-strokes.ts';
import type { KontextEditorStrings } from './strings.ts';

/** A picture's mask: it stays with the picture it was drawn on. */
export interface Mask {
  strokes: Stroke[];
  /** Pixels, when the user chose it. */
  feather?: number;
}

const icon = (path: string): string =>
  `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>`;

const ICONS: Record<MaskTool | 'undoStroke' | 'clear', string> = {
  brush: 'M20 4 10 14M9 13c-3 0-4 2-4 4 0 1-1 2-2 2 1 1 3 2 5 2 3 0 4-2 4-4s-1-4-3-4z',
  eraser: 'm4 15 9-9 7 7-7 7H8zM9 10l7 7',
  rectangle: 'M4 6h16v12H4z',
  undoStroke: 'M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3',
  clear: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13',
};

const STYLE = `
.overlay { z-index: 2; opacity: 0.85; pointer-events: none; outline: none; }
.masking .overlay { pointer-events: auto; cursor: crosshair; touch-action: none; }
.masking .overlay:focus-visible { outline: 3px solid var(--accent); outline-offset: -3px; }
.masking .history, .masking .compare, .masking .compare + .divider { display: none; }
.masktools { display: grid; gap: 6px; }
.masktools div { display: flex; flex-wrap: wrap; gap: 6px 12px; }
.masktools button { flex: 1; display: grid; place-items: center; min-width: 40px; padding: 7px 4px; }
.masktools svg { width: 1.25em; height: 1.25em; }
.masktools [aria-pressed='true'] { background: var(--accent); color: var(--on-accent); }
.masktools label { flex: 1 1 110px; display: flex; align-items: center; gap: 8px; margin: 0; font-weight: 400; font-size: 0.9em; min-width: 0; }
.masktools input { flex: 1; min-width: 0; width: 40px; height: 24px; margin: 0; accent-color: var(--accent); }`;

export class MaskEditor {
  #tool: MaskTool = 'brush';
  /** Percent of the picture's shorter side. */
  #size = 12;
  #mask: Mask = { strokes: [] };
  #picture = { width: 1, height: 1 };
  /** Of the stroke being drawn; the last one of the mask. */
  #drawing = false;
  /** Where the keyboard is, in pixels of the picture; shown while the overlay has its focus. */
  #cursor: { x: number; y: number } | undefined;
  readonly #canvas = document.createElement('canvas');
  readonly #tools = document.createElement('section');
  readonly #editor: HTMLElement;

  constructor(
    private readonly face: Face,
    private strings: KontextEditorStrings,
  ) {
    this.#editor = face.root.querySelector('.editor')!;
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    face.root.adoptedStyleSheets.push(style);
    this.#canvas.className = 'overlay';
    this.#canvas.setAttribute('part', 'mask');
    this.#canvas.setAttribute('role', 'application');
    face.root.querySelector('.frame')!.append(this.#canvas);
    this.#tools.className = 'masktools';
    this.#tools.setAttribute('part', 'mask-tools');
    this.#build();
    this.#listen();
    // The overlay is drawn at the size it is shown at.
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
  }

  /** Whether strokes are being drawn, and not just shown. */
  get active(): boolean {
    return this.#editor.classList.contains('masking');
  }

  set active(active: boolean) {
    this.#editor.classList.toggle('masking', active);
    this.#canvas.tabIndex = active ? 0 : -1;
    if (active) this.face.root.querySelector('.tools')!.before(this.#tools);
    else this.#tools.remove();
    if (active) this.#canvas.focus({ preventScroll: true });
    this.#draw();
  }

  /** Replaces the texts. */
  say(strings: KontextEditorStrings): void {
    this.strings = strings;
    this.#build();
  }

  /** Shows a picture's mask, or hides the overlay. */
  show(mask: Mask | undefined, picture: { width: number; height: number }): void {
    this.#mask = mask ?? { strokes: [] };
    this.#picture = picture;
    this.#drawing = false;
    this.#cursor = undefined;
    this.#canvas.hidden = !mask || (mask.strokes.length === 0 && !this.active);
    this.#build();
    this.#draw();
  }

  #build(): void {
    const { strings } = this;
    const [min] = [Math.min(this.#picture.width, this.#picture.height)];
    const feather = this.#mask.feather ?? Math.min(8, min / 8);
    const button = (name: keyof typeof ICONS, state: string) =>
      `<button part="button" type="button" data-mask="${name}" ${state}>${icon(ICONS[name])}</button>`;
    const tools = (['brush', 'eraser', 'rectangle'] as const).map((name) =>
      button(name, `aria-pressed="${name === this.#tool}"`),
    );
    const none = this.#mask.strokes.length === 0 ? 'disabled' : '';
    const focused = (this.face.root.activeElement as HTMLElement | null)?.dataset.mask;
    this.#tools.innerHTML = `
      <div role="group">${tools.join('')}${button('undoStroke', none)}${button('clear', none)}</div>
      <div>
        <label><span></span><input type="range" data-mask="size" min="2" max="50" value="${this.#size}"></label>
        <label><span></span><input type="range" data-mask="feather" min="0" max="${Math.max(1, Math.round(min / 8))}" value="${feather}"></label>
      </div>`;
    const [group, sliders] = this.#tools.children as unknown as [HTMLElement, HTMLElement];
    group.ariaLabel = strings.mask;
    for (const node of group.children as Iterable<HTMLElement> & HTMLCollection) {
      node.ariaLabel = node.title = strings.masking[node.dataset.mask as MaskTool];
    }
    [...sliders.querySelectorAll('span')].forEach((span, i) => {
      span.textContent = i === 0 ? strings.masking.size : strings.masking.feather;
    });
    this.#canvas.ariaLabel = strings.masking.canvas;
    const again = focused && this.#tools.querySelector<HTMLElement>(`[data-mask="${focused}"]:not(:disabled)`);
    if (again) again.focus();
  }

  #listen(): void {
    const canvas = this.#canvas;
    this.#tools.addEventListener('click', (event) => {
      const name = (event.target as Element).closest<HTMLElement>('button')?.dataset.mask;
      if (name === 'undoStroke') this.#undo();
      else if (name === 'clear') this.#clear();
      else if (name) this.#pick(name as MaskTool);
    });
    this.#tools.addEventListener('input', ({ target }) => {
      const { dataset, value } = target as HTMLInputElement;
      if (dataset.mask === 'size') this.#size = Number(value);
      else this.#mask.feather = Number(value);
      this.#draw();
    });
    canvas.addEventListener('pointerdown', (event) => {
      if (!this.active || event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#cursor = undefined;
      this.#begin(this.#at(event));
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!this.#drawing || !canvas.hasPointerCapture(event.pointerId)) return;
      const moves = event.getCoalescedEvents?.() ?? [];
      for (const move of moves.length > 0 ? moves : [event]) this.#extend(this.#at(move));
    });
    const end = () => this.#end();
    canvas.addEventListener('pointerup', end);
    canvas.addEventListener('pointercancel', end);
    canvas.addEventListener('keydown', (event) => this.#key(event));
    canvas.addEventListener('focus', () => this.#draw());
    canvas.addEventListener('blur', () => {
      this.#end();
      this.#draw();
    });
  }

  /** Arrows move, Space puts the pen down and lifts it, letters pick a tool, brackets its size. */
  #key(event: KeyboardEvent): void {
    if (!this.active) return;
    const move = ARROWS[event.key];
    const { width, height } = this.#picture;
    if (move) {
      const step = Math.max(1, (this.#pixels() / 2) * (event.shiftKey ? 4 : 1));
      const { x, y } = this.#cursor ?? { x: width / 2, y: height / 2 };
      const clamp = (value: number, max: number) => Math.min(max, Math.max(0, value));
      this.#cursor = { x: clamp(x + move[0] * step, width), y: clamp(y + move[1] * step, height) };
      if (this.#drawing) this.#extend(this.#cursor);
    } else if (event.key === ' ') {
      this.#cursor ??= { x: width / 2, y: height / 2 };
      if (this.#drawing) this.#end();
      else this.#begin(this.#cursor);
    } else if (event.key === 'z' && (event.ctrlKey || event.metaKey)) this.#undo();
    else if (event.key === 'Delete' || event.key === 'Backspace') this.#clear();
    else if (event.key === '[' || event.key === ']') {
      this.#size = Math.min(50, Math.max(2, this.#size + (event.key === '[' ? -2 : 2)));
      this.#build();
    } else if (KEYS[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) this.#pick(KEYS[event.key]!);
    else return;
    event.preventDefault();
    this.#draw();
  }

  #pick(tool: MaskTool): void {
    this.#end();
    this.#tool = tool;
    this.#build();
    this.#draw();
  }

  #begin(point: { x: number; y: number }): void {
    this.#drawing = true;
    this.#mask.strokes.push({ tool: this.#tool, size: this.#pixels(), points: [point] });
    this.#draw();
  }

  #extend(point: { x: number; y: number }): void {
    const { tool, points } = this.#mask.strokes.at(-1)!;
    if (tool === 'rectangle') points[1] = point;
    else points.push(point);
    this.#draw();
  }

  #end(): void {
    if (!this.#drawing) return;
    this.#drawing = false;
    this.#build();
    this.#draw();
  }

  #undo(): void {
    this.#drawing = false;
    this.#mask.strokes.pop();
    this.#build();
    this.#draw();
  }

  #clear(): void {
    this.#drawing = false;
    this.#mask.strokes.length = 0;
    this.#build();
    this.#draw();
  }

  #pixels(): number {
    return (Math.min(this.#picture.width, this.#picture.height) * this.#size) / 100;
  }

  #at({ clientX, clientY }: { clientX: number; clientY: number }): { x: number; y: number } {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return {
      x: ((clientX - left) / width) * this.#picture.width,
      y: ((clientY - top) / height) * this.#picture.height,
    };
  }

  #draw(): void {
    const canvas = this.#canvas;
    if (canvas.hidden) return;
    const { width, height } = canvas.getBoundingClientRect();
    if (width === 0) return;
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    const context = canvas.getContext('2d')!;
    const [scaleX, scaleY] = [canvas.width / this.#picture.width, canvas.height / this.#picture.height];
    context.fillStyle = context.strokeStyle = '#000000';
    drawStrokes(context, this.#mask.strokes, scaleX, scaleY);
    context.globalCompositeOperation = 'source-in';
    context.fillStyle = context.createPattern(stripes(), 'repeat')!;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = 'source-over';
    if (!this.#cursor || this.face.root.activeElement !== canvas) return;
    // The keyboard's cursor: a ring in black and white, of the brush's size.
    const radius = this.#tool === 'rectangle' ? 6 * devicePixelRatio : (this.#pixels() / 2) * scaleX;
    for (const [color, line] of [
      ['#000000', 4],
      ['#ffffff', 2],
    ] as const) {
      context.beginPath();
      context.arc(this.#cursor.x * scaleX, this.#cursor.y * scaleY, radius, 0, 2 * Math.PI);
      context.strokeStyle = color;
      context.lineWidth = line * devicePixelRatio;
      context.stroke();
    }
  }
}

export { maskOf };

const ARROWS: Record<string, readonly [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
const KEYS: Record<string, MaskTool> = { b: 'brush', e: 'eraser', r: 'rectangle' };

let pattern: OffscreenCanvas | undefined;

/** Diagonal stripes, dark and light, half transparent. */
function stripes(): OffscreenCanvas {
  if (pattern) return pattern;
  const size = 16;
  pattern = new OffscreenCanvas(size, size);
  const context = pattern.getContext('2d')!;
  context.fillStyle = 'rgb(214 0 110 / 0.62)';
  context.fillRect(0, 0, size, size);
  context.globalCompositeOperation = 'copy';
  context.fillRect(0, 0, size, size);
  context.globalCompositeOperation = 'source-atop';
  context.strokeStyle = 'rgb(255 255 255 / 0.85)';
  context.lineWidth = 3;
  context.beginPath();
  for (const shift of [-size, 0, size]) {
    context.moveTo(shift - 4, size + 4);
    context.lineTo(shift + size + 4, -4);
  }
  context.stroke();
  return pattern;
}
