// The element's shadow tree: built once, found by name, filled with words.
import type { KontextEditorStrings } from './strings.ts';
import { STYLE } from './style.ts';
import { MARKUP } from './template.ts';

/** The parts of the shadow tree that the element works with. */
export type Face = ReturnType<typeof buildFace>;

export function buildFace(root: ShadowRoot) {
  const style = new CSSStyleSheet();
  style.replaceSync(STYLE);
  root.adoptedStyleSheets = [style];
  const template = document.createElement('template');
  template.innerHTML = MARKUP;
  root.append(template.content);
  const find = <T extends HTMLElement>(selector: string): T => root.querySelector(selector) as T;
  const button = (name: string): HTMLButtonElement => find<HTMLButtonElement>(`.${name}`);
  return {
    root,
    before: find<HTMLCanvasElement>('.before'),
    after: find<HTMLCanvasElement>('.after'),
    compare: find<HTMLInputElement>('.compare'),
    form: find<HTMLFormElement>('form'),
    prompt: find<HTMLTextAreaElement>('#prompt'),
    progress: find<HTMLProgressElement>('progress'),
    status: find<HTMLParagraphElement>('.status'),
    detail: find<HTMLParagraphElement>('.detail'),
    history: find<HTMLOListElement>('.history'),
    file: find<HTMLInputElement>('.file'),
    pick: button('pick'),
    edit: button('edit'),
    cancel: button('cancel'),
    undo: button('undo'),
    redo: button('redo'),
    download: button('download'),
    replace: button('replace'),
    mask: button('area'),
  };
}

/** Puts the words into the markup's places for them. */
export function fillFace({ root, prompt }: Face, strings: KontextEditorStrings): void {
  const text = (name: string | undefined) => strings[name as 'prompt'];
  for (const node of root.querySelectorAll<HTMLElement>('[data-text]')) node.textContent = text(node.dataset.text);
  for (const node of root.querySelectorAll<HTMLElement>('[data-name]')) node.ariaLabel = text(node.dataset.name);
  for (const node of root.querySelectorAll<HTMLElement>('[data-title]')) node.title = text(node.dataset.title);
  prompt.placeholder = strings.placeholder;
}

/** Lets the field grow with its text where the browser does not do it by `field-sizing`. */
export function fitPrompt(prompt: HTMLTextAreaElement): void {
  if (CSS.supports('field-sizing', 'content')) return;
  prompt.style.height = 'auto';
  prompt.style.height = `${prompt.scrollHeight + prompt.offsetHeight - prompt.clientHeight}px`;
}
