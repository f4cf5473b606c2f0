// Edits on one picture, each of the result of the one before; going back and editing again begins a branch, and nothing is lost.
// Every turn keeps its seed and options, so a history can be run again to the same pictures.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { PixelImage } from '../image/pixels.ts';
import { type HistoryNode, HistoryTree } from './history-tree.ts';
import { checkSignal } from './signal.ts';
import type { Session as Contract, EditRequest, EditResult, ImageInput, Turn, TurnOptions } from './types.ts';

/** What a session needs of an engine. */
export interface SessionEngine {
  /** As {@link KontextEngine.edit}. */
  edit(request: EditRequest): Promise<EditResult>;
}

/** Opens a picture where the engine lives. */
type Decode = (input: ImageInput) => Promise<PixelImage>;

/** {@link Contract} over an engine. */
export class Session implements Contract {
  readonly #engine: SessionEngine;
  readonly #first: ImageInput;
  readonly #decode: Decode;
  #firstPixels: Promise<PixelImage> | undefined;
  readonly #tree: HistoryTree<Made>;
  /** By turn; made when asked for. */
  readonly #thumbnails = new Map<number, Promise<Uint8Array<ArrayBuffer>>>();
  #busy: Promise<unknown> = Promise.resolve();

  /** @internal */
  constructor(engine: SessionEngine, first: ImageInput, decode: Decode, turns: readonly Turn[] = [], position = 0) {
    this.#engine = engine;
    this.#first = first;
    this.#decode = decode;
    this.#tree = new HistoryTree(
      turns.map(({ id, parent, ...value }) => ({ id, parent, value })),
      position,
    );
  }

  get history(): readonly Turn[] {
    return this.#tree.path().map(turnOf);
  }

  get turns(): readonly Turn[] {
    return this.#tree.nodes.map(turnOf);
  }

  get position(): number {
    return this.#tree.position;
  }

  get canUndo(): boolean {
    return this.#tree.canUndo;
  }

  get canRedo(): boolean {
    return this.#tree.canRedo;
  }

  get current(): ImageInput {
    return this.#pictureOf(this.position);
  }

  get image(): Promise<PixelImage> {
    return this.#pixelsOf(this.position);
  }

  branches(id: number = this.position): readonly Turn[] {
    return this.#tree.children(id).map(turnOf);
  }

  goTo(id: number): ImageInput {
    this.#tree.goTo(id);
    return this.current;
  }

  edit(prompt: string, options: TurnOptions = {}): Promise<EditResult> {
    return this.#inOrder(async () => {
      if (typeof options !== 'object' || options === null) {
        throw new KontextError('invalid-request', 'The options of a turn must be an object.');
      }
      if ('output' in options || (options.images ?? 1) !== 1) {
        throw new KontextError('invalid-request', 'A turn makes one picture: leave out output and images.');
      }
      const parent = this.position;
      const { anchor, ...plain } = options;
      const anchored = anchor && parent > 0 && { references: [this.#first, ...(options.references ?? [])] };
      const result = await this.#engine.edit({ ...plain, ...anchored, image: this.current, prompt });
      const {
        signal: _,
        onProgress: __,
        preview: ___,
        choose: _choose,
        variants: _n,
        variantSteps: _k,
        ...kept
      } = options;
      const made: Made = {
        prompt,
        options: { ...kept, seed: result.seed },
        resolved: result.options,
        image: result.image,
      };
      this.#tree.add(made, parent);
      return result;
    });
  }

  undo(): ImageInput {
    this.#tree.undo();
    return this.current;
  }

  redo(): ImageInput {
    this.#tree.redo();
    return this.current;
  }

  thumbnail(id: number = this.position): Promise<Uint8Array<ArrayBuffer>> {
    let known = this.#thumbnails.get(id);
    if (!known) {
      known = this.#pixelsOf(id).then(async (image) => (await import('../image/thumbnail.ts')).thumbnailPng(image));
      this.#thumbnails.set(id, known);
      // What failed may succeed the next time.
      known.catch(() => this.#thumbnails.delete(id));
    }
    return known;
  }

  fork(): Session {
    return new Session(this.#engine, this.#first, this.#decode, this.turns, this.position);
  }

  export(format?: 'json'): Promise<string>;
  export(format: 'png'): Promise<Uint8Array<ArrayBuffer>>;
  async export(format: 'json' | 'png' = 'json'): Promise<string | Uint8Array<ArrayBuffer>> {
    if (format !== 'json' && format !== 'png') {
      throw new KontextError(
        'invalid-request',
        `A session is exported as "json" or "png", not ${JSON.stringify(format)}.`,
      );
    }
    const { writeSession, writeSessionPng } = await import('./session-file.ts');
    const text = await writeSession({ first: this.#first, turns: this.turns, position: this.position }, this.#decode);
    return format === 'json' ? text : writeSessionPng(text, await this.image);
  }

  async import(file: string | Uint8Array | ArrayBuffer | Blob): Promise<Session> {
    const { readSession } = await import('./session-file.ts');
    const { first, turns, position } = await readSession(file);
    return new Session(this.#engine, first, this.#decode, turns, position);
  }

  async replay(options: { signal?: AbortSignal } = {}): Promise<Session> {
    const { signal } = options ?? {};
    checkSignal(signal);
    const again = new Session(this.#engine, this.#first, this.#decode);
    for (const turn of this.turns) {
      again.goTo(turn.parent);
      await again.edit(turn.prompt, { ...turn.options, ...(signal && { signal }) });
    }
    again.goTo(this.position);
    return again;
  }

  #pictureOf(id: number): ImageInput {
    return this.#tree.at(id)?.value.image ?? this.#first;
  }

  #pixelsOf(id: number): Promise<PixelImage> {
    const made = this.#tree.at(id);
    if (made) return Promise.resolve(made.value.image);
    if (id !== 0) return Promise.reject(new KontextError('invalid-request', `There is no turn ${String(id)}.`));
    this.#firstPixels ??= this.#decode(this.#first).catch((error: unknown) => {
      // What failed, a download perhaps, may succeed the next time.
      this.#firstPixels = undefined;
      throw error;
    });
    return this.#firstPixels;
  }

  #inOrder<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#busy.then(task, task);
    this.#busy = run.catch(() => undefined);
    return run;
  }
}

type Made = Omit<Turn, 'id' | 'parent'>;

const turnOf = ({ id, parent, value }: HistoryNode<Made>): Turn => ({ id, parent, ...value });
