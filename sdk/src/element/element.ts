// <kontext-editor>: pick a picture, say what should change, watch it happen, go back and forth, keep the result.
// The engine runs in a worker, so the host page stays free; the element is only its face.
import { KontextError } from '../../../runtime/src/errors.ts';
import { decodeImage, toBlob, toCanvas } from '../image/browser.ts';
import type { PixelImage } from '../image/pixels.ts';
import type { Session, TurnOptions } from '../kontext/session.ts';
import type { EditResult, ImageInput, KontextEngine, ProgressEvent } from '../kontext/types.ts';
import { Kontext, type WorkerOptions } from '../worker/client.ts';
import { MARKUP, STYLE } from './template.ts';

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

type Face = ReturnType<typeof build>;

/** Server-side rendering imports the module too. */
const Base = globalThis.HTMLElement ?? (class {} as typeof HTMLElement);

/**
 * The element `<kontext-editor>`, defined by importing this module.
 *
 * Attributes: `model`, the URL of the model's folder; `steps`, `seed`, `guidance`, as in a request; `preview`, every so many
 * steps. Parts: `stage picture pick form prompt button progress status toolbar history compare`. Custom properties:
 * `--kontext-accent -background -surface -text -muted -on-accent -radius -font`.
 */
export class KontextEditor extends Base {
  /** Options of `Kontext.load` in the worker; set them before the first edit. */
  options: WorkerOptions = {};
  /** An engine to use instead of loading `model`; the element then does not close it. */
  engine: KontextEngine | undefined;

  #face: Face | undefined;
  #loading: Promise<KontextEngine> | undefined;
  #session: Session | undefined;
  /** The first picture, then each result; `#position` is the one shown. */
  #pictures: { image: PixelImage; title: string }[] = [];
  #position = 0;
  #stop: AbortController | undefined;

  /** Called by the browser. @internal */
  connectedCallback(): void {
    if (!this.#face) {
      this.#face = build(this.attachShadow({ mode: 'open' }));
      this.#listen(this.#face);
    }
    if (!globalThis.navigator?.gpu && !this.engine)
      this.#showFailure(new KontextError('webgpu-unavailable', NO_WEBGPU));
  }

  /** Called by the browser. @internal */
  disconnectedCallback(): void {
    this.cancel();
    void this.#loading?.then((engine) => engine.close()).catch(() => {});
    this.#loading = undefined;
    this.#session = undefined;
  }

  /** Opens a picture; what was there before is forgotten. @throws KontextError `image-invalid`, `download-failed` */
  async open(input: ImageInput): Promise<void> {
    this.cancel();
    const image = await decodeImage(input, 'picture');
    this.#pictures = [{ image, title: 'Original' }];
    this.#position = 0;
    this.#session = undefined;
    this.#emit('kontext-open', { image });
    this.#state('ready', `Picture opened, ${image.width} by ${image.height} pixels.`);
    this.#render();
  }

  /** The picture shown, or undefined before one was opened. */
  get picture(): PixelImage | undefined {
    return this.#pictures[this.#position]?.image;
  }

  /** Edits the picture shown; what was undone is dropped. Failures are shown, told by `kontext-error`, and thrown. */
  async edit(prompt: string, options: TurnOptions = {}): Promise<EditResult> {
    this.#stop?.abort();
    const stop = new AbortController();
    this.#stop = stop;
    this.#state('editing', 'Loading the model');
    try {
      this.#session ??= (await this.#engine()).session(this.#pictures[0]!.image);
      const result = await this.#session.edit(prompt, {
        ...this.#requestOptions(),
        ...options,
        signal: stop.signal,
        onProgress: (event) => this.#progress(event),
      });
      this.#pictures = [...this.#pictures.slice(0, this.#position + 1), { image: result.image, title: prompt }];
      this.#position++;
      this.#emit('kontext-result', { ...result, prompt });
      this.#state('ready', `Done in ${(result.timings.totalMs / 1000).toFixed(1)} seconds: ${prompt}`);
      return result;
    } catch (cause) {
      if (cause instanceof KontextError && cause.code === 'aborted') this.#state('ready', 'Cancelled.');
      else this.#showFailure(cause);
      throw cause;
    } finally {
      if (this.#stop === stop) this.#stop = undefined;
      this.#render();
    }
  }

  /** Stops the edit that is running, if one is. */
  cancel(): void {
    this.#stop?.abort();
  }

  /** Shows the picture before the one shown; does nothing at the first one or during an edit. */
  undo(): void {
    this.#go(this.#position - 1);
  }

  /** Shows the picture after the one shown; does nothing at the last one or during an edit. */
  redo(): void {
    this.#go(this.#position + 1);
  }

  #engine(): Promise<KontextEngine> {
    if (this.engine) return Promise.resolve(this.engine);
    const model = this.getAttribute('model');
    if (!model)
      throw new KontextError('invalid-request', 'This editor has no model: set its attribute `model` to a URL.');
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

  #progress(event: ProgressEvent): void {
    this.#emit('kontext-progress', event);
    const { progress, after, status } = this.#face!;
    progress.value = event.progress;
    if (event.type === 'preview') toCanvas(event.preview, after);
    if (event.type === 'step') status.textContent = `Step ${event.step} of ${event.steps}`;
    if (event.type === 'stage') status.textContent = STAGES[event.stage];
  }

  #go(position: number): void {
    if (this.#stop || position < 0 || position >= this.#pictures.length) return;
    for (; this.#position > position; this.#position--) this.#session?.undo();
    for (; this.#position < position; this.#position++) this.#session?.redo();
    this.#state('ready', `Showing: ${this.#pictures[position]!.title}`);
    this.#render();
  }

  #state(state: 'ready' | 'editing' | 'failed', message: string): void {
    this.dataset.state = state;
    if (!this.#face) return;
    const { status, edit, cancel, progress, prompt } = this.#face;
    const editing = state === 'editing';
    status.textContent = message;
    const hadFocus = this.shadowRoot?.activeElement;
    edit.disabled = editing || this.#pictures.length === 0;
    edit.hidden = editing;
    cancel.hidden = !editing;
    progress.hidden = !editing;
    if (editing) progress.value = 0;
    // The button under the keyboard's focus has just gone.
    if (editing && hadFocus === edit) cancel.focus();
    if (!editing && hadFocus === cancel) prompt.focus();
  }

  #showFailure(cause: unknown): void {
    const error =
      cause instanceof KontextError
        ? cause
        : new KontextError('invalid-request', String((cause as Error).message ?? cause));
    this.#state('failed', error.message);
    this.#emit('kontext-error', error);
  }

  #render(): void {
    if (!this.#face) return;
    const { before, after, pick, compare, undo, redo, download, replace, history } = this.#face;
    const shown = this.#pictures[this.#position];
    const previous = this.#pictures[this.#position - 1];
    const editing = this.#stop !== undefined;
    pick.hidden = shown !== undefined;
    after.hidden = !shown;
    before.hidden = compare.hidden = !previous;
    if (shown) toCanvas(shown.image, after);
    if (previous) toCanvas(previous.image, before);
    compare.value = '0';
    this.style.setProperty('--split', '0%');
    undo.disabled = editing || !previous;
    redo.disabled = editing || this.#position + 1 >= this.#pictures.length;
    download.disabled = replace.disabled = !shown;
    history.replaceChildren(
      ...this.#pictures.map(({ image, title }, i) => {
        const button = document.createElement('button');
        button.type = 'button';
        button.title = title;
        button.setAttribute('aria-label', `${i}: ${title}`);
        if (i === this.#position) button.setAttribute('aria-current', 'step');
        button.append(toCanvas(image, document.createElement('canvas')));
        button.addEventListener('click', () => this.#go(i));
        const item = document.createElement('li');
        item.append(button);
        return item;
      }),
    );
  }

  #listen(face: Face): void {
    const { form, prompt, cancel, undo, redo, download, compare, pick, replace, file } = face;
    const choose = () => file.click();
    const take = (input: ImageInput | null | undefined) => {
      if (input) this.open(input).catch((error: unknown) => this.#showFailure(error));
    };
    pick.addEventListener('click', choose);
    replace.addEventListener('click', choose);
    file.addEventListener('change', () => take(file.files?.[0]));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      // Failures are on the screen already.
      if (this.#pictures.length > 0) this.edit(prompt.value).catch(() => {});
    });
    cancel.addEventListener('click', () => this.cancel());
    undo.addEventListener('click', () => this.undo());
    redo.addEventListener('click', () => this.redo());
    download.addEventListener('click', () => void this.#download());
    compare.addEventListener('input', () => this.style.setProperty('--split', `${compare.value}%`));
    this.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.cancel();
    });
    this.addEventListener('paste', (event) => take(event.clipboardData?.files[0]));
    this.addEventListener('dragover', (event) => {
      event.preventDefault();
      this.dataset.drop = '';
    });
    this.addEventListener('dragleave', () => delete this.dataset.drop);
    this.addEventListener('drop', (event) => {
      event.preventDefault();
      delete this.dataset.drop;
      take(event.dataTransfer?.files[0] ?? (event.dataTransfer?.getData('text/uri-list') || undefined));
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

const STAGES = {
  'encode-image': 'Reading the picture',
  'encode-text': 'Reading the instruction',
  modulation: 'Preparing the steps',
  denoise: 'Painting',
  decode: 'Developing the picture',
} as const;

const NO_WEBGPU =
  'This browser offers no WebGPU. Use a current Chrome, Edge, Firefox or Safari over https, with graphics acceleration on.';

function build(root: ShadowRoot) {
  const style = new CSSStyleSheet();
  style.replaceSync(STYLE);
  root.adoptedStyleSheets = [style];
  const template = document.createElement('template');
  template.innerHTML = MARKUP;
  root.append(template.content);
  const find = <T extends HTMLElement>(selector: string): T => root.querySelector(selector) as T;
  const button = (name: string): HTMLButtonElement => find<HTMLButtonElement>(`.${name}`);
  return {
    before: find<HTMLCanvasElement>('.before'),
    after: find<HTMLCanvasElement>('.after'),
    compare: find<HTMLInputElement>('.compare'),
    form: find<HTMLFormElement>('form'),
    prompt: find<HTMLInputElement>('#prompt'),
    progress: find<HTMLProgressElement>('progress'),
    status: find<HTMLParagraphElement>('.status'),
    history: find<HTMLOListElement>('.history'),
    file: find<HTMLInputElement>('.file'),
    pick: button('pick'),
    edit: button('edit'),
    cancel: button('cancel'),
    undo: button('undo'),
    redo: button('redo'),
    download: button('download'),
    replace: button('replace'),
  };
}

// A second copy of the package in one page must not throw.
if (globalThis.customElements && !customElements.get('kontext-editor')) {
  customElements.define('kontext-editor', KontextEditor);
}

declare global {
  interface HTMLElementTagNameMap {
    'kontext-editor': KontextEditor;
  }
}
