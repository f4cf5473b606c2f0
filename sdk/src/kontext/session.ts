// A chain of edits on one picture: each works on the result of the one before, with undo, redo and forks.
// Every turn keeps its seed and options, so a history can be run again to the same pictures.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { PixelImage } from '../image/pixels.ts';
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
  #turns: Turn[];
  #position: number;
  #busy: Promise<unknown> = Promise.resolve();

  /** @internal */
  constructor(
    engine: SessionEngine,
    first: ImageInput,
    decode: Decode,
    turns: Turn[] = [],
    position: number = turns.length,
  ) {
    this.#engine = engine;
    this.#first = first;
    this.#decode = decode;
    this.#turns = turns;
    this.#position = position;
  }

  get history(): readonly Turn[] {
    return this.#turns.slice(0, this.#position);
  }

  get canUndo(): boolean {
    return this.#position > 0;
  }

  get canRedo(): boolean {
    return this.#position < this.#turns.length;
  }

  get current(): ImageInput {
    return this.#position === 0 ? this.#first : this.#turns[this.#position - 1]!.image;
  }

  get image(): Promise<PixelImage> {
    if (this.#position > 0) return Promise.resolve(this.#turns[this.#position - 1]!.image);
    this.#firstPixels ??= this.#decode(this.#first).catch((error: unknown) => {
      // What failed, a download perhaps, may succeed the next time.
      this.#firstPixels = undefined;
      throw error;
    });
    return this.#firstPixels;
  }

  edit(prompt: string, options: TurnOptions = {}): Promise<EditResult> {
    return this.#inOrder(async () => {
      if (typeof options !== 'object' || options === null) {
        throw new KontextError('invalid-request', 'The options of a turn must be an object.');
      }
      if ('output' in options || (options.images ?? 1) !== 1) {
        throw new KontextError('invalid-request', 'A turn makes one picture: leave out output and images.');
      }
      const before = this.history;
      const { anchor, ...plain } = options;
      const anchored = anchor && before.length > 0 && { references: [this.#first, ...(options.references ?? [])] };
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
      const turn: Turn = {
        prompt,
        options: { ...kept, seed: result.seed },
        resolved: result.options,
        image: result.image,
      };
      this.#turns = [...before, turn];
      this.#position = this.#turns.length;
      return result;
    });
  }

  undo(): ImageInput {
    this.#position = Math.max(0, this.#position - 1);
    return this.current;
  }

  redo(): ImageInput {
    this.#position = Math.min(this.#turns.length, this.#position + 1);
    return this.current;
  }

  fork(): Session {
    return new Session(this.#engine, this.#first, this.#decode, [...this.#turns], this.#position);
  }

  async export(): Promise<string> {
    const { writeSession } = await import('./session-file.ts');
    return writeSession({ first: this.#first, turns: this.#turns, position: this.#position }, this.#decode);
  }

  async import(text: string): Promise<Session> {
    const { readSession } = await import('./session-file.ts');
    const { first, turns, position } = await readSession(text);
    return new Session(this.#engine, first, this.#decode, [...turns], position);
  }

  async replay(options: { signal?: AbortSignal } = {}): Promise<Session> {
    const { signal } = options ?? {};
    checkSignal(signal);
    const again = new Session(this.#engine, this.#first, this.#decode);
    for (const turn of this.history) await again.edit(turn.prompt, { ...turn.options, ...(signal && { signal }) });
    return again;
  }

  #inOrder<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#busy.then(task, task);
    this.#busy = run.catch(() => undefined);
    return run;
  }
}
