// <kontext-editor>: pick a picture, say what should change, watch it happen, go back and forth, keep the result.
// The engine runs in a worker, so the host page stays free; the element is only its face.
import { KontextError } from '../../../runtime/src/errors.ts';
import { decodeImage, toBlob, toCanvas } from '../image/browser.ts';
import type { PixelImage } from '../image/pixels.ts';
import { HistoryTree } from '../kontext/history-tree.ts';
import type { EditResult, ImageInput, KontextEngine, ProgressEvent, TurnOptions } from '../kontext/types.ts';
import { Kontext, type WorkerOptions } from '../worker/client.ts';
import type { AdapterList, EditorAdapter } from './adapter-list.ts';
import { buildFace, type Face, fillFace, fitPrompt } from './face.ts';
import { type Entry, renderHistory, type Step } from './history.ts';
import { listenForPictures } from './incoming.ts';
import type { MaskEditor } from './mask-editor.ts';
import { english, type KontextEditorStrings } from './strings.ts';
import { wordingOf } from './wording.ts';

/** Events of the element; all bubble and cross shadow roots. */
export interface KontextEditorEvents {
  /** A picture was opened by the user or by {@link KontextEditor.open}. */
  'kontext-open': CustomEvent<{
    /** The picture as it was decoded. */
    image: PixelImage;
  }>;
  /** What happens during an edit. */
  'kontext-progress': CustomEvent<ProgressEvent>;
  /** An edit is done. */
  'kontext-result': CustomEvent<
    EditResult & {
      /** What was asked for. */
      prompt: string;
    }
  >;
  /** Something failed; the element shows the message. */
  'kontext-error': CustomEvent<KontextError>;
}

/** Server-side rendering imports the module too. */
const Base = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

/** Milliseconds after which an element that left the page gives its model back: long enough to be put elsewhere. */
const KEEP_MS = 1000;

/**
 * The element `<kontext-editor>`, defined by importing this module.
 *
 * Attributes: `model`, the URL of the model's folder; `steps`, `seed`, `guidance`, as in a request; `preview`, every so many
 * steps. Parts: `editor stage picture pick panel form prompt button progress status detail toolbar history compare mask mask-tools adapters`. Custom
 * properties: `--kontext-accent -background -surface -text -muted -on-accent -danger -radius -font -max-height`.
 */
export class KontextEditor extends Base {
  // A framework may have set these before the class was there: what it set stays.
  /** Options of `Kontext.load` in the worker; set them before the first edit. */
  options: WorkerOptions = (this as Partial<KontextEditor>).options ?? {};
  /** Options of every edit, as in a request; they win over the attributes. Read when an edit starts. */
  request: TurnOptions = (this as Partial<KontextEditor>).request ?? {};
  /** An engine to use instead of loading `model`; the element then does not close it. */
  engine: KontextEngine | undefined = (this as Partial<KontextEditor>).engine;

  #face: Face | undefined;
  #strings = english;
  #loading: Promise<KontextEngine> | undefined;
  #release: ReturnType<typeof setTimeout> | undefined;
  /** The picture that was opened, and what was made of it. */
  #first: Entry | undefined;
  #history = new HistoryTree<Entry>();
  #stop: AbortController | undefined;
  #maskEditor: MaskEditor | undefined;
  #adapters: readonly EditorAdapter[] = [];
  #adapterList: AdapterList | undefined;
  /** Settles once the list shows what {@link adapters} holds; an edit waits for it. */
  #adaptersShown: Promise<void> = Promise.resolve();
  /** Counts calls of {@link open}: the last one wins. */
  #opened = 0;

  /** The texts of the element. Set any of them: those left out stay English. Default: English. */
  get strings(): KontextEditorStrings {
    return this.#strings;
  }
  /** Takes any of the texts. */
  set strings(strings: Partial<KontextEditorStrings>) {
    this.#strings = { ...english, ...strings };
    if (this.#face) fillFace(this.#face, this.#strings);
    this.#maskEditor?.say(this.#strings);
    this.#adapterList?.say(this.#strings);
  }

  /** Adapters to choose from, each with a slider for its strength. Default none, and then no list. */
  get adapters(): readonly EditorAdapter[] {
    return this.#adapters;
  }
  /** Replaces the list; what was chosen of those that stay is kept. */
  set adapters(adapters: readonly EditorAdapter[]) {
    this.#adapters = adapters;
    this.#adaptersShown = this.#offerAdapters();
  }

  /** Called by the browser. @internal */
  connectedCallback(): void {
    clearTimeout(this.#release);
    if (this.#face) return;
    this.#face = buildFace(this.attachShadow({ mode: 'open' }));
    this.#upgrade();
    fillFace(this.#face, this.#strings);
    this.#listen(this.#face);
    this.#adaptersShown = this.#offerAdapters();
    void this.#askForAdapter();
  }

  /** Called by the browser when the element was moved, which changes nothing. @internal */
  connectedMoveCallback(): void {}

  /** Called by the browser. The model stays for as long as a move in the page takes. @internal */
  disconnectedCallback(): void {
    this.#release = setTimeout(() => {
      this.cancel();
      void this.#loading?.then((engine) => engine.close()).catch(() => {});
      this.#loading = undefined;
    }, KEEP_MS);
  }

  /** Opens a picture; what was there before is forgotten. @throws KontextError `image-invalid`, `download-failed` */
  async open(input: ImageInput): Promise<void> {
    const turn = ++this.#opened;
    const image = await decodeImage(input, 'picture');
    // Another picture was opened in the meantime.
    if (turn !== this.#opened) return;
    this.cancel();
    this.#stop = undefined;
    this.#first = { image, title: this.#strings.original };
    this.#history = new HistoryTree();
    this.#emit('kontext-open', { image });
    this.#state('ready', this.#strings.opened(image.width, image.height));
    this.#render();
  }

  /** The picture shown, or undefined before one was opened. */
  get picture(): PixelImage | undefined {
    return this.#shown?.image;
  }

  /** Edits the picture shown; what was undone stays as another branch. Failures are shown, told by `kontext-error`, and thrown. */
  async edit(prompt: string, options: TurnOptions = {}): Promise<EditResult> {
    this.#stop?.abort();
    const stop = new AbortController();
    this.#stop = stop;
    const { picture } = this;
    const words = this.#strings;
    try {
      if (!picture) throw new KontextError('invalid-request', 'There is no picture to edit: open one first.');
      this.#state('editing', words.opening);
      this.#render();
      const mask = await this.#maskOptions();
      const engine = await this.#engine();
      await this.#adaptersShown;
      const result = await engine.edit({
        ...this.#requestOptions(),
        ...this.request,
        ...mask,
        ...(this.#adapterList && this.#adapters.length > 0 && { adapters: this.#adapterList.chosen }),
        ...options,
        image: picture,
        prompt,
        signal: stop.signal,
        onProgress: (event) => this.#progress(event),
      });
      if (this.#stop !== stop) return result;
      this.#history.add({ image: result.image, title: prompt });
      this.#emit('kontext-result', { ...result, prompt });
      const seconds = (result.timings.totalMs / 1000).toLocaleString(words.locale, { maximumFractionDigits: 1 });
      this.#state('ready', words.done(seconds, prompt) + (result.truncated ? ` ${words.truncated}` : ''));
      return result;
    } catch (cause) {
      // Another edit or another picture took over: what is on the screen is theirs.
      if (this.#stop !== stop) throw cause;
      if (cause instanceof KontextError && cause.code === 'aborted') this.#state('ready', words.cancelled);
      else this.#showFailure(cause);
      throw cause;
    } finally {
      if (this.#stop === stop) {
        this.#stop = undefined;
        this.#render();
      }
    }
  }

  /** Stops the edit that is running, if one is. */
  cancel(): void {
    this.#stop?.abort();
  }

  /** Shows the picture before the one shown; does nothing at the first one or during an edit. */
  undo(): void {
    if (this.#history.canUndo) this.#go(this.#history.at(this.#history.position)!.parent);
  }

  /** Shows the picture after the one shown, of several the one seen last; does nothing at the last one or during an edit. */
  redo(): void {
    const next = this.#history.line().find(({ parent }) => parent === this.#history.position);
    if (next) this.#go(next.id);
  }

  get #shown(): Entry | undefined {
    return this.#entryAt(this.#history.position);
  }

  #entryAt(id: number): Entry | undefined {
    return id === 0 ? this.#first : this.#history.at(id)?.value;
  }

  #engine(): Promise<KontextEngine> {
    if (this.engine) return Promise.resolve(this.engine);
    const model = this.getAttribute('model');
    if (!model) throw new KontextError('invalid-request', this.#strings.noModel);
    this.#loading ??= Kontext.load(model, this.options).catch((error: unknown) => {
      // The next edit tries again.
      this.#loading = undefined;
      throw error;
    });
    return this.#loading;
  }

  #requestOptions(): TurnOptions {
    const number = (name: string) => {
      const value = this.getAttribute(name);
      return value === null ? undefined : Number(value);
    };
    const [steps, seed, guidance] = [number('steps'), number('seed'), number('guidance')];
    return {
      ...(steps !== undefined && { steps }),
      ...(seed !== undefined && { seed }),
      ...(guidance !== undefined && { guidance }),
      preview: { every: number('preview') ?? 4 },
    };
  }

  /** What was drawn on the picture shown: only there it changes. */
  async #maskOptions(): Promise<Pick<TurnOptions, 'mask' | 'maskFeather'>> {
    const { image, mask } = this.#shown!;
    if (!mask?.strokes.length) return {};
    const { maskOf } = await import('./mask-editor.ts');
    const pixels = maskOf(mask.strokes, image.width, image.height);
    return pixels ? { mask: pixels, ...(mask.feather !== undefined && { maskFeather: mask.feather }) } : {};
  }

  async #toggleMask(): Promise<void> {
    if (this.#face && !this.#maskEditor) {
      const { MaskEditor } = await import('./mask-editor.ts');
      this.#maskEditor ??= new MaskEditor(this.#face, this.#strings);
    }
    const entry = this.#shown;
    if (!entry || this.#stop) return;
    const active = !this.#maskEditor!.active;
    entry.mask ??= { strokes: [] };
    this.#maskEditor!.active = active;
    this.#maskEditor!.show(entry.mask, entry.image);
    this.#face!.mask.ariaPressed = String(active);
    if (!active) this.#face!.mask.focus();
  }

  async #offerAdapters(): Promise<void> {
    if (!this.#face) return;
    if (!this.#adapterList) {
      if (this.#adapters.length === 0) return;
      const { AdapterList } = await import('./adapter-list.ts');
      this.#adapterList ??= new AdapterList(this.#face, this.#strings);
    }
    // Read after the wait: what was set last counts.
    this.#adapterList.offer(this.#adapters);
  }

  /** Properties that a framework set before the class was there would hide its accessors. */
  #upgrade(): void {
    for (const name of ['strings', 'adapters'] as const) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete (this as Partial<KontextEditor>)[name];
      Object.assign(this, { [name]: value });
    }
  }

  /** Says at once, and not after an attempt, when this browser cannot compute. */
  async #askForAdapter(): Promise<void> {
    const gpu = globalThis.navigator?.gpu;
    const adapter = await gpu?.requestAdapter().catch(() => null);
    // A framework sets `engine` after it has connected the element.
    if (adapter || this.engine || this.#first) return;
    const lack = gpu ? 'adapter' : 'webgpu';
    const { pageFacts, visitorAdvice } = await import('../../../runtime/src/gpu/advice.ts');
    this.#showFailure(new KontextError('webgpu-unavailable', visitorAdvice(lack, pageFacts()), { lack }));
  }

  #progress(event: ProgressEvent): void {
    this.#emit('kontext-progress', event);
    if (!this.#face) return;
    const { progress, after, status, detail } = this.#face;
    // Nothing measured yet: the bar moves without a value.
    if (event.progress > 0) progress.value = event.progress;
    if (event.type === 'preview') toCanvas(event.preview, after);
    const words = wordingOf(event, this.#strings);
    if (words.message !== undefined) status.textContent = words.message;
    detail.textContent = words.detail;
  }

  #go(id: number): void {
    const entry = this.#entryAt(id);
    if (this.#stop || !entry) return;
    this.#history.goTo(id);
    this.#state('ready', this.#strings.showing(entry.title));
    this.#render();
  }

  /** The strip: from the first picture through the one shown and on as redo goes, with the ways that were left at each. */
  #steps(): Step[] {
    if (!this.#first) return [];
    const results = this.#history.line().map(({ id, parent, value }): Step => {
      const ways = this.#history.children(parent);
      const way = ways.findIndex((one) => one.id === id);
      return { id, entry: value, way, ways: ways.length, other: ways[(way + 1) % ways.length]!.id };
    });
    return [{ id: 0, entry: this.#first, way: 0, ways: 1, other: 0 }, ...results];
  }

  #state(state: 'ready' | 'editing' | 'failed', message: string): void {
    this.dataset.state = state;
    if (!this.#face) return;
    const { status, detail, edit, cancel, progress, prompt } = this.#face;
    const editing = state === 'editing';
    status.textContent = message;
    detail.textContent = '';
    const hadFocus = this.shadowRoot?.activeElement;
    edit.disabled = editing || !this.#first;
    edit.hidden = editing;
    cancel.hidden = !editing;
    progress.hidden = !editing;
    if (editing) progress.removeAttribute('value');
    // The button under the keyboard's focus has just gone.
    if (editing && hadFocus === edit) cancel.focus();
    if (!editing && hadFocus === cancel) prompt.focus();
  }

  #showFailure(cause: unknown): void {
    const error =
      cause instanceof KontextError
        ? cause
        : new KontextError('invalid-request', String((cause as Error).message ?? cause));
    this.#state('failed', this.#strings.error(error));
    this.#emit('kontext-error', error);
  }

  #render(): void {
    if (!this.#face) return;
    const { root, before, after, pick, compare, undo, redo, download, replace, mask, history } = this.#face;
    const shown = this.#shown;
    const node = this.#history.at(this.#history.position);
    const previous = node && this.#entryAt(node.parent);
    const editing = this.#stop !== undefined;
    pick.hidden = shown !== undefined;
    after.hidden = !shown;
    before.hidden = compare.hidden = !previous || editing;
    if (shown) {
      toCanvas(shown.image, after);
      const editor = root.querySelector<HTMLElement>('.editor')!;
      editor.style.setProperty('--ratio', String(shown.image.width / shown.image.height));
    }
    if (previous) toCanvas(previous.image, before);
    compare.value = '0';
    this.style.setProperty('--split', '0%');
    undo.disabled = editing || !previous;
    redo.disabled = editing || !this.#history.canRedo;
    download.disabled = replace.disabled = !shown;
    mask.disabled = editing || !shown;
    if (this.#maskEditor && shown) {
      if (editing) this.#maskEditor.active = false;
      if (this.#maskEditor.active) shown.mask ??= { strokes: [] };
      this.#maskEditor.show(editing ? undefined : shown.mask, shown.image);
      mask.ariaPressed = String(this.#maskEditor.active);
    }
    renderHistory(history, this.#steps(), this.#history.position, after, this.#strings, (id) => this.#go(id));
  }

  #listen(face: Face): void {
    const { form, prompt, cancel, undo, redo, download, compare, mask } = face;
    listenForPictures(this, face, (input) => {
      this.open(input).catch((error: unknown) => this.#showFailure(error));
    });
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      // Failures are on the screen already.
      if (this.#first && !this.#stop) this.edit(prompt.value).catch(() => {});
    });
    prompt.addEventListener('input', () => fitPrompt(prompt));
    prompt.addEventListener('keydown', (event) => {
      // While an input method composes, Enter takes its suggestion.
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    cancel.addEventListener('click', () => this.cancel());
    undo.addEventListener('click', () => this.undo());
    redo.addEventListener('click', () => this.redo());
    download.addEventListener('click', () => void this.#download());
    mask.addEventListener('click', () => void this.#toggleMask());
    compare.addEventListener('input', () => this.style.setProperty('--split', `${compare.value}%`));
    this.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      if (this.#maskEditor?.active) void this.#toggleMask();
      else this.cancel();
    });
  }

  async #download(): Promise<void> {
    const url = URL.createObjectURL(await toBlob(this.picture!));
    const link = document.createElement('a');
    link.href = url;
    link.download = 'edited.png';
    link.click();
    URL.revokeObjectURL(url);
  }

  #emit<K extends keyof KontextEditorEvents>(type: K, detail: KontextEditorEvents[K]['detail']): void {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }
}

// A second copy of the package in one page must not throw.
if (globalThis.customElements && !customElements.get('kontext-editor')) {
  customElements.define('kontext-editor', KontextEditor);
}

export { decodeImage, toBlob, toCanvas } from '../image/browser.ts';
export type { EditorAdapter } from './adapter-list.ts';
export { english, type KontextEditorStrings, type LoadedPart } from './strings.ts';

declare global {
  interface HTMLElementTagNameMap {
    'kontext-editor': KontextEditor;
  }
  interface HTMLElementEventMap extends KontextEditorEvents {}
}
