// A chain of edits as apps see it: turns, branches, files of them.
import type { PixelImage } from '../image/pixels.ts';
import type { EditRequest, ImageInput } from './request-types.ts';
import type { EditResult, ResolvedOptions } from './result-types.ts';

/** Options of a turn: those of `edit()` without the picture. */
export interface TurnOptions extends Omit<EditRequest, 'image' | 'prompt'> {
  /** Shows the session's first picture as a further reference, so that many turns drift less from it. Default false. */
  anchor?: boolean;
}

/** One edit that was made; plain JSON apart from the picture and further references. */
export interface Turn {
  /** Its number, from 1, in the order turns were made. */
  id: number;
  /** The turn whose picture it edited; 0 is the first picture. */
  parent: number;
  /** What was asked for. */
  prompt: string;
  /** As given, with the seed that was used; what only mattered while it was made is left out, and variants, of which the seed is the chosen one's. */
  options: Omit<TurnOptions, 'signal' | 'onProgress' | 'preview' | 'choose' | 'variants' | 'variantSteps'>;
  /** The same with every default filled in. */
  resolved: ResolvedOptions;
  /** The result. */
  image: PixelImage;
}

/**
 * Made by `kontext.session(image)`.
 *
 * Between turns the engine keeps prompt embeddings by text and encoded references by picture and size: the same numbers come
 * out as without them. The latents of a result are *not* taken as the next turn's reference, although that would save an
 * encoding: the decoder's output rounded to 8 bits and encoded again is what the reference pipeline would see, and differs.
 */
export interface Session {
  /** The turns that lead from the first picture to the current one, oldest first. */
  readonly history: readonly Turn[];
  /** All turns, of every branch, in the order they were made. */
  readonly turns: readonly Turn[];
  /** The turn whose picture is current; 0 is the first picture. */
  readonly position: number;
  /** Whether {@link Session.undo} would change anything. */
  readonly canUndo: boolean;
  /** Whether {@link Session.redo} would change anything. */
  readonly canRedo: boolean;
  /** The picture the next edit works on: the last result, or the first picture as it was given. */
  readonly current: ImageInput;
  /**
   * {@link Session.current} as pixels, whatever was given: for an own interface that shows the picture after `undo()` and `redo()`.
   * The first picture is decoded once.
   *
   * @throws KontextError `image-invalid`, `download-failed` when the first picture cannot be read
   */
  readonly image: Promise<PixelImage>;
  /**
   * Edits the current picture; the result becomes current. After `undo()` or `goTo()` it begins a branch beside the turns that are there.
   * Calls made at the same time run in order, each on the result of the one before. A turn that fails or is cancelled leaves the session
   * as it was.
   *
   * @throws KontextError as `edit()`; `invalid-request` for `output: 'latents'` or several `images`, which leave no one picture
   */
  edit(prompt: string, options?: TurnOptions): Promise<EditResult>;
  /** Steps back one turn. @returns the picture that is current now; unchanged when there is nothing to undo */
  undo(): ImageInput;
  /** Steps forward to a turn that was undone: of several branches to the one seen last. @returns the picture that is current now */
  redo(): ImageInput;
  /** The turns that were made of a turn's picture; by default of the current one. More than one are branches. */
  branches(id?: number): readonly Turn[];
  /** Makes a turn's picture current, of whatever branch. @returns it. @throws KontextError `invalid-request` when there is no such turn */
  goTo(id: number): ImageInput;
  /**
   * A turn's picture as a PNG file of at most 128 pixels a side, by default of the current one; made once.
   *
   * @throws KontextError `invalid-request` when there is no such turn; as {@link Session.image}
   */
  thumbnail(id?: number): Promise<Uint8Array<ArrayBuffer>>;
  /** A session of its own from here on, with this one's history. */
  fork(): Session;
  /**
   * Everything of the session, all branches with it, as one JSON text: the pictures bit for bit, prompts, options and seeds. Or inside a PNG
   * file of the current picture, which every program shows and only this one reads the rest of.
   *
   * @throws KontextError `image-invalid`, `download-failed` when a picture that was given cannot be read any more
   */
  export(format?: 'json'): Promise<string>;
  /** As the other form, inside a PNG file. */
  export(format: 'png'): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * A session with what {@link Session.export} gave, on this one's engine.
   *
   * @param file the text, or the bytes of the PNG file
   * @throws KontextError `invalid-request` when it is none
   */
  import(file: string | Uint8Array | ArrayBuffer | Blob): Promise<Session>;
  /**
   * Makes every turn of every branch again, with the same prompts, options and seeds.
   *
   * @returns a new session; on the same adapter its pictures equal this one's byte for byte
   */
  replay(options?: { signal?: AbortSignal }): Promise<Session>;
}
