// The platform's types that this package speaks of, wherever the app's compiler may lack them.
// Known through @types/node, the DOM library or others they are just those; else as much of each as is needed here.

/** The instances of a global class of this name, or what stands for them. */
type Known<Name extends string, Otherwise> = typeof globalThis extends { [K in Name]: { prototype: infer Instance } }
  ? Instance
  : Otherwise;

/** Stands for what this platform has not: nothing is of it. */
interface Absent {
  readonly 'not on this platform': never;
}

export type AbortSignal = Known<'AbortSignal', KnownSignal>;
interface KnownSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

export type URL = Known<'URL', KnownUrl>;
interface KnownUrl {
  readonly href: string;
  toString(): string;
}

export type Blob = Known<'Blob', KnownBlob>;
interface KnownBlob {
  readonly size: number;
  readonly type: string;
  slice(start?: number, end?: number): KnownBlob;
  arrayBuffer(): Promise<ArrayBuffer>;
}

export type CryptoKey = Known<'CryptoKey', Absent>;
export type ImageBitmap = Known<'ImageBitmap', Absent>;
export type ImageData = Known<'ImageData', Absent>;
export type HTMLImageElement = Known<'HTMLImageElement', Absent>;
export type HTMLCanvasElement = Known<'HTMLCanvasElement', Absent>;
export type HTMLVideoElement = Known<'HTMLVideoElement', Absent>;
export type OffscreenCanvas = Known<'OffscreenCanvas', Absent>;
export type VideoFrame = Known<'VideoFrame', Absent>;
export type Worker = Known<'Worker', Absent>;

export type BufferSource = ArrayBufferView | ArrayBuffer;

export type Fetch = typeof globalThis extends { fetch: infer Function }
  ? Function
  : (input: string, init?: { headers?: Record<string, string>; signal?: KnownSignal }) => Promise<unknown>;

export type WebAssemblyModule = typeof globalThis extends { WebAssembly: { Module: { prototype: infer Instance } } }
  ? Instance
  : Absent;
