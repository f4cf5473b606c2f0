// The runtime's public surface: devices, programs, weights, execution.
// It knows neither models nor the compiler.

export { KontextError, type KontextErrorCode, type KontextErrorJSON } from './errors.ts';
export type { BindProgress } from './execute/bindings.ts';
export {
  Executable,
  type ExecutableOptions,
  type PortCopy,
  type RunOptions,
  type RunReport,
} from './execute/executable.ts';
export type { ReadResult, ReadType } from './execute/ports.ts';
export { SlabPool } from './execute/slabs.ts';
export { Trace, type TraceEvent } from './execute/trace.ts';
export { type Backend, KontextDevice } from './gpu/device.ts';
export { BufferUsage } from './gpu/flags.ts';
export { describeAdapter, type OpenDeviceOptions, openDevice } from './gpu/open.ts';
export type { AdapterReport } from './gpu/report.ts';
export { checkProgram, type DeviceFacts, decodeProgram, validateProgram } from './program/check.ts';
export * from './program/types.ts';
export { type ByteSource, blobBytes, fileBytes, memoryBytes, type UrlBytesOptions, urlBytes } from './weights/bytes.ts';
export { openSafetensors, openShardedSafetensors } from './weights/files/safetensors.ts';
export { bflNaming, tinyDecoderNaming } from './weights/naming/index.ts';
export type { SourceTensor, WeightSource } from './weights/source.ts';
export { type WeightMemory, WeightStore } from './weights/store.ts';
export type { BlockReader, ElementReader, QuantBlock, SourceType } from './weights/types/source-type.ts';
