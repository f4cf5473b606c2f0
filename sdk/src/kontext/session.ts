// A chain of edits on one picture: each works on the result of the one before, with undo, redo and forks.
// Every turn keeps its seed and options, so a history can be run again to the same pictures.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { PixelImage } from '../image/pixels.ts';
import { checkSignal } from './signal.ts';
import type { EditRequest, EditResult, ImageInput, ResolvedOptions } from './types.ts';

/** Options of a turn: those of `edit()` without the picture. */
export interface TurnOptions extends Omit<EditRequest, 'image' | 'prompt'> {
  /** Shows the session's first picture as a further reference, so that many turns drift less from it. Default false. */
  anchor?: boolean;
}

/** One edit that was made; plain JSON apart from the picture and further references. */
export interface Turn {
  /** What was asked for. */
  prompt: string;
  /** As given, with the seed that was used; what only mattered while it was made is left out, and variants, of which the seed is the chosen one's. */
  options: Omit<TurnOptions, 'signal' | 'onProgress' | 'preview' | 'choose' | 'variants' | 'variantSteps'>;
  /** The same with every default filled in. */
  resolved: ResolvedOptions;
  /** The result. */
  image: PixelImage;
}

/** What a session needs of an engine. */
export interface SessionEngine {
  /** As {@link KontextEngine.edit}. */
  edit(request: EditRequest): Promise<EditResult>;
}

/** Opens a picture where the engine lives. */
type Decode = (input: ImageInput) => Promise<PixelImage>;

/**
 * Made by `kontext.session(image)`.
 *
 * Between turns the engine keeps prompt embeddings by text and encoded references by picture and size: the same numbers come
 * out as without them. The latents of a result are *not* taken as the next turn's reference, although that would save an
 * encoding: the decoder's output rounded to 8 bits and encoded again is what the reference pipeline would see, and differs.
 */
export class Session {
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

  /** The turns up to now, oldest first; undone ones are not among them. */
  get history(): readonly Turn[] {
    return this.#turns.slice(0, this.#position);
  }

  /** Whether {@link Session.undo} would change anything. */
  get canUndo(): boolean {
    return this.#position > 0;
  }

  /** Whether {@link Session.redo} would change anything. */
  get canRedo(): boolean {
    return this.#position < this.#turns.length;
  }

  /** The picture the next edit works on: the last result, or the first picture as it was given. */
  get current(): ImageInput {
    return this.#position === 0 ? this.#first : this.#turns[this.#position - 1]!.image;
  }

  /**
   * {@link Session.current} as pixels, whatever was given: for an own interface that shows the picture after `undo()` and `redo()`.
   * The first picture is decoded once.
   *
   * @throws KontextError `image-invalid`, `download-failed` when the first picture cannot be read
   */
  get image(): Promise<PixelImage> {
    if (this.#position > 0) return Promise.resolve(this.#turns[this.#position - 1]!.image);
    this.#firstPixels ??= this.#decode(this.#first).catch((error: unknown) => {
      // What failed, a download perhaps, may succeed the next time.
      this.#firstPixels = undefined;
      throw error;
    });
    return this.#firstPixels;
  }

  /**
   * Edits the current picture; the result becomes current and undone turns are dropped. Calls made at the same time run in
   * order, each on the result of the one before. A turn that fails or is cancelled leaves the session as it was.
   *
   * @throws KontextError as `edit()`; `invalid-request` for `output: 'latents'` or several `images`, which leave no one picture
   */
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

  /** Steps back one turn. @returns the picture that is current now; unchanged when there is nothing to undo */
  undo(): ImageInput {
    this.#position = Math.max(0, this.#position - 1);
    return this.current;
  }

  /** Steps forward to a turn that was undone. @returns the picture that is current now */
  redo(): ImageInput {
    this.#position = Math.min(this.#turns.length, this.#position + 1);
    return this.current;
  }

  /** A session of its own from here on, with this one's history. */
  fork(): Session {
    return new Session(this.#engine, this.#first, this.#decode, [...this.#turns], this.#position);
  }

  /**
   * Everything of the session as one JSON text, undone turns included: the pictures bit for bit, prompts, options and seeds.
   *
   * @throws KontextError `image-invalid`, `download-failed` when a picture that was given cannot be read any more
   */
  async export(): Promise<string> {
    const { writeSession } = await import('./session-file.ts');
    return writeSession({ first: this.#first, turns: this.#turns, position: this.#position }, this.#decode);
  }

  /**
   * A session with what {@link Session.export} gave, on this one's engine.
   *
   * @throws KontextError `invalid-request` when `text` is none
   */
  async import(text: string): Promise<Session> {
    const { readSession } = await import('./session-file.ts');
    const { first, turns, position } = await readSession(text);
    return new Session(this.#engine, first, this.#decode, [...turns], position);
  }

  /**
   * Makes every turn again from the first picture, with the same prompts, options and seeds.
   *
   * @returns a new session; on the same adapter its pictures equal this one's byte for byte
   */
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
