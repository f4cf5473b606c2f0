// What is told while a request runs.
import type { PixelImage } from '../image/pixels.ts';

/** Stages of a request, in order. */
export type Stage = 'encode-image' | 'encode-text' | 'modulation' | 'denoise' | 'decode';

/** Fields that every {@link ProgressEvent} has. */
export interface Progressing {
  /** Share of the whole request's work that is done, 0 to 1, never falling. */
  progress: number;
  /** Estimated milliseconds until the result; absent until something has been measured. */
  remainingMs?: number;
}

/**
 * What happens during a request, in the order of the stages:
 *
 * - `queued`: it waits for `ahead` other requests;
 * - `stage`: a stage begins;
 * - `compile`: `done` of `total` kernels of a component are compiled;
 * - `load`: `loadedBytes` of `totalBytes` of a component's weights are on the GPU;
 * - `step`: step `step` (from 1) of `steps` of picture `image` (from 0) took `stepMs` milliseconds;
 * - `choice`: of the variants, those with these indices go on;
 * - `preview`: how picture `image` looks after step `step`;
 * - `done`: the result follows.
 */
export type ProgressEvent = Progressing &
  (
    | { type: 'queued'; ahead: number }
    | { type: 'stage'; stage: Stage }
    | { type: 'compile'; component: string; done: number; total: number }
    | { type: 'load'; component: string; loadedBytes: number; totalBytes: number }
    | { type: 'step'; image: number; step: number; steps: number; stepMs: number }
    | { type: 'choice'; chosen: number[] }
    | { type: 'preview'; image: number; step: number; preview: PixelImage }
    | { type: 'done' }
  );
