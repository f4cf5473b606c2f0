// The module's exports, and nothing else.
// Every file uses raw memory only (see memory.ts), so the module needs no garbage collector and imports nothing.
export { clipCreate, clipEncode } from './clip-bpe';
export { allocate, errorDetail, release, reset, scratch } from './memory';
export { generatorBytes, generatorNormal, generatorSeed } from './random';
export { resizeBand, resizeBandRows, resizeBegin, resizeOut, resizeOutRows, resizeStep } from './resize';
export {
  dynamicMu,
  linearSigmas,
  logitNormalDensity,
  logitNormalQuantile,
  shiftExponential,
  shiftStatic,
  sigmoidInPlace,
} from './schedule';
export { t5Create, t5Encode } from './t5-unigram';
