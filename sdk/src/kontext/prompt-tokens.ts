// The two tokenizers of an engine, and what a large prompt costs: cut where no id changes, and nothing of it kept.
// WASM memory never shrinks, so what needs much of it runs in a module of its own that goes with the ids.
import { builtInTable } from '../host/built-in-tables.ts';
import type { Host } from '../host/module.ts';
import { buildClipTable, buildT5Table } from '../host/tables.ts';
import { ClipTokenizer, type Encoding, T5Tokenizer } from '../host/tokenizers.ts';
import type { Model } from '../model/open.ts';
import { cutPrompt } from './cut-prompt.ts';

/** Characters (UTF-16 units) above which a text gets a module of its own: CLIP takes up to a hundred bytes for each. */
const LARGE = 2 ** 14;

type Tokenizer = ClipTokenizer | T5Tokenizer;
type Name = 'clip' | 't5';

export class PromptTokens {
  readonly #kept: Record<Name, Tokenizer>;

  private constructor(
    private readonly host: Host,
    private readonly model: Model,
    kept: Record<Name, Tokenizer>,
  ) {
    this.#kept = kept;
  }

  /** With the model's own tokenizers, or the built-in ones. @throws KontextError `tokenizer-invalid` */
  static async create(host: Host, model: Model): Promise<PromptTokens> {
    return new PromptTokens(host, model, {
      clip: await open('clip', host, model),
      t5: await open('t5', host, model),
    });
  }

  /** The first `length` ids of a text, padded. @throws KontextError `invalid-request`, `out-of-memory` */
  async encode(name: Name, text: string, length: number): Promise<Encoding> {
    const read = cutPrompt(text, length);
    if (read.length <= LARGE) return this.#kept[name].encodeWithCount(read, { length });
    const apart = await open(name, await this.host.another(), this.model);
    return apart.encodeWithCount(read, { length });
  }

  dispose(): void {
    this.#kept.clip.dispose();
    this.#kept.t5.dispose();
  }
}

async function open(name: Name, host: Host, { clipTokenizer, t5Tokenizer }: Model): Promise<Tokenizer> {
  if (name === 'clip')
    return ClipTokenizer.create(host, clipTokenizer ? clipTable(clipTokenizer) : await builtInTable(name));
  return T5Tokenizer.create(host, t5Tokenizer ? t5Table(t5Tokenizer) : await builtInTable(name));
}

const clipTable = (files: NonNullable<Model['clipTokenizer']>) =>
  'table' in files ? files.table : buildClipTable(files);
const t5Table = (files: NonNullable<Model['t5Tokenizer']>) => ('table' in files ? files.table : buildT5Table(files));
