// An opened model: four networks with their weights, two tokenizers, a schedule and defaults, wherever they came from.
import type { WeightFormat } from '../../../runtime/src/program/types.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import type { ScheduleOptions } from '../host/schedule.ts';
import type { ModelDefaults } from '../kontext/options.ts';
import type { TokenizerTexts } from './tokenizers-in.ts';

/** The four networks. */
export type PartName = 'clip' | 't5' | 'transformer' | 'vae';

export interface ModelPart {
  weights: WeightSource;
  /** Its `config.json`; absent with BFL files, whose shapes say it all. */
  config?: Record<string, unknown>;
  /** Formats in which a packed model holds its matrices; programs are compiled for these. */
  stored?: Readonly<Record<string, WeightFormat>>;
}

export interface Model extends TokenizerTexts {
  /** For messages: where it came from. */
  label: string;
  parts: Record<PartName, ModelPart>;
  schedule: Pick<ScheduleOptions, 'shift' | 'baseShift' | 'maxShift' | 'baseSeqLen' | 'maxSeqLen'>;
  defaults: ModelDefaults;
  /** A small decoder for previews, when the app gave one. */
  previewDecoder?: WeightSource;
  close(): Promise<void>;
}
