// All element types that weights can have in files, by name. Loaders carry the types of their own tensors instead of looking here,
// so that a page which opens safetensors does not load ggml's blocks; planning, packing, tools and tests walk this table.

import { FLOAT_TYPES } from './floats.ts';
import { GGML_TYPES } from './ggml.ts';
import type { SourceType } from './source-type.ts';

export const SOURCE_TYPES: Readonly<Record<string, SourceType>> = { ...FLOAT_TYPES, ...GGML_TYPES };

/** Bits an element takes in the file. */
export const sourceBits = (type: SourceType): number => (8 * type.bytes) / type.elements;
