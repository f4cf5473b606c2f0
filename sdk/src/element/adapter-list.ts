// The adapters that an editor offers: a list to choose from, each with its strength. Loaded when an app gives some.
import type { FileInput } from '../model/files.ts';
import { pageUrl } from '../worker/page-url.ts';
import type { Face } from './face.ts';
import type { KontextEditorStrings } from './strings.ts';

/** An adapter (LoRA or a relative) that the user may choose. */
export interface EditorAdapter {
  /** Shown in the list, and what the result calls it. */
  name: string;
  /** The file: a URL, a Blob or its bytes. */
  source: FileInput;
  /** Where its slider stands at first, 0 to 2; default 1. */
  scale?: number;
  /** Whether it is chosen at first; default no. */
  chosen?: boolean;
}

const STYLE = `
.adapters { display: grid; gap: 6px; max-height: min(140px, 22vh); overflow-y: auto; }
.adapters summary { font-weight: 600; cursor: pointer; }
.adapters div { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 12px; }
.adapters label { flex: 1 1 120px; display: flex; align-items: center; gap: 8px; min-width: 0; margin: 0; font-weight: 400; overflow-wrap: anywhere; }
.adapters input { margin: 0; accent-color: var(--accent); }
.adapters [type='checkbox'] { width: 20px; height: 20px; flex: none; }
.adapters [type='range'] { flex: 1 1 90px; min-width: 60px; height: 24px; }
.adapters output { width: 2.6em; text-align: end; font-variant-numeric: tabular-nums; color: var(--muted); }
.adapters summary:focus-visible, .adapters input:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }`;

export class AdapterList {
  readonly #details = document.createElement('details');
  #choices: { adapter: EditorAdapter; chosen: boolean; scale: number }[] = [];

  constructor(
    private readonly face: Face,
    private strings: KontextEditorStrings,
  ) {
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    face.root.adoptedStyleSheets.push(style);
    this.#details.className = 'adapters';
    this.#details.setAttribute('part', 'adapters');
    this.#details.open = true;
  }

  /** Replaces the list; choices of adapters that stay are kept. */
  offer(adapters: readonly EditorAdapter[]): void {
    this.#choices = adapters.map((adapter) => {
      const known = this.#choices.find((choice) => choice.adapter.name === adapter.name);
      return { adapter, chosen: known?.chosen ?? adapter.chosen ?? false, scale: known?.scale ?? adapter.scale ?? 1 };
    });
    if (adapters.length === 0) this.#details.remove();
    else this.face.root.querySelector('.tools')!.before(this.#details);
    this.#build();
  }

  /** Replaces the texts. */
  say(strings: KontextEditorStrings): void {
    this.strings = strings;
    this.#build();
  }

  /** What a request takes: the chosen ones, files as addresses that a worker understands as well. */
  get chosen(): { name: string; source: FileInput; scale: number }[] {
    return this.#choices
      .filter(({ chosen }) => chosen)
      .map(({ adapter: { name, source }, scale }) => ({
        name,
        source: typeof source === 'string' || source instanceof URL ? pageUrl(source).href : source,
        scale,
      }));
  }

  #build(): void {
    const summary = document.createElement('summary');
    summary.textContent = this.strings.adapters;
    this.#details.replaceChildren(
      summary,
      ...this.#choices.map((choice) => {
        const row = document.createElement('div');
        const label = document.createElement('label');
        const [box, slider] = [document.createElement('input'), document.createElement('input')];
        const value = document.createElement('output');
        box.type = 'checkbox';
        box.checked = choice.chosen;
        label.append(box, choice.adapter.name);
        Object.assign(slider, { type: 'range', min: '0', max: '2', step: '0.05' });
        slider.value = String(choice.scale);
        slider.ariaLabel = this.strings.strength(choice.adapter.name);
        const show = () => {
          value.textContent = choice.scale.toLocaleString(this.strings.locale, { minimumFractionDigits: 2 });
          slider.disabled = !choice.chosen;
        };
        box.addEventListener('input', () => {
          choice.chosen = box.checked;
          show();
        });
        slider.addEventListener('input', () => {
          choice.scale = Number(slider.value);
          show();
        });
        show();
        row.append(label, slider, value);
        return row;
      }),
    );
  }
}
