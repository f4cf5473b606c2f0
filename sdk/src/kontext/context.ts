// What an engine keeps between requests, handed to every stage of the pipeline.
import type { Host } from '../host/module.ts';
import type { Model } from '../model/open.ts';
import type { Family } from './family.ts';
import type { Parts } from './parts.ts';
import type { PreviewMap } from './preview.ts';
import type { ReferenceEncoder } from './references.ts';
import type { TextEncoders } from './text.ts';

/** What outlives a request. */
export interface PipelineContext {
  host: Host;
  model: Model;
  parts: Parts;
  text: TextEncoders;
  references: ReferenceEncoder;
  family: Family;
  /** Set by the first request that shows previews by it. */
  preview?: PreviewMap;
}
