// What is written into pictures' files, and what is read out of them.
import type { EditRequest, ResolvedOptions } from '../../kontext/types.ts';

/** What a picture was made with: a result's `options`, with its seed. */
export interface MadeWith extends ResolvedOptions {
  /** Of this picture. */
  seed: number | bigint;
  /** What the model is called. */
  model?: string;
}

/** A setting of a file that is not among the options. */
export interface Unused {
  /** As the file calls it. */
  name: string;
  /** Why not. */
  reason: string;
}

/** What a picture's file says about how it was made. */
export interface PictureSettings {
  /** Options of a request, the prompt among them; without pictures, which a file does not hold. */
  options: Partial<Omit<EditRequest, 'image' | 'references' | 'mask' | 'control'>>;
  /** What the file says beyond that, and why it is not used. */
  unused: Unused[];
}

/** Candidates for options, by our names, before they were held to the table. */
export interface Found {
  options: Record<string, unknown>;
  unused: Unused[];
}
