// Starts the AssemblyScript module and moves bytes in and out of it.
// One place knows about memory growth, the scratch arena and error codes, so the facades beside it can stay short.
import { KontextError, type KontextErrorCode } from '../../../runtime/src/errors.ts';
import type { HostExports } from './exports.ts';

/** Where the WASM module comes from; by default out of the bundle itself. */
export interface HostOptions {
  /** The module's bytes, or the module already compiled (it can be posted to workers). */
  wasm?: BufferSource | WebAssembly.Module;
  /** Where to fetch `kontext.wasm` instead of decoding the copy inside the bundle; for pages whose policy or size budget wants it. */
  wasmUrl?: string | URL;
}

/** What an error code of the module means; facades add their own with {@link Host.check}. */
export type ErrorTable = Readonly<Record<number, (detail: number) => [code: KontextErrorCode, message: string]>>;

const commonErrors: ErrorTable = {
  [-1]: () => ['out-of-memory', 'The WASM memory cannot grow any further. Use shorter texts or smaller images.'],
};

/** A started module. Not shared between threads: every worker loads its own. */
export class Host {
  #view: Uint8Array;

  constructor(
    readonly exports: HostExports,
    private readonly module: WebAssembly.Module,
  ) {
    this.#view = new Uint8Array(exports.memory.buffer);
  }

  /** The same module with a memory of its own, for a task whose memory is to go when it is done: WASM memory never shrinks. */
  another(): Promise<Host> {
    return start(this.module);
  }

  /** The whole memory as bytes. Fetch it again after any call into the module: growth detaches the old view. */
  get bytes(): Uint8Array {
    if (this.#view.buffer !== this.exports.memory.buffer) this.#view = new Uint8Array(this.exports.memory.buffer);
    return this.#view;
  }

  /** Empties the scratch arena. Call it once at the start of a task. */
  reset(): void {
    this.exports.reset();
  }

  /** `byteLength` bytes of scratch, 16-byte aligned, valid until the next {@link reset}, {@link keep} or {@link release}. */
  scratch(byteLength: number): number {
    return this.#address(byteLength <= 0xffffffff ? this.exports.scratch(byteLength) : 0, byteLength);
  }

  /** Copies `data` into scratch and returns its address. */
  push(data: ArrayBufferView): number {
    const address = this.scratch(data.byteLength);
    this.bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), address);
    return address;
  }

  /** Copies `data` into memory that stays until {@link release}. Empties the scratch arena. */
  keep(data: Uint8Array): number {
    const address = this.#address(this.exports.allocate(data.byteLength), data.byteLength);
    this.bytes.set(data, address);
    return address;
  }

  /** Gives back what {@link keep} returned. Empties the scratch arena. */
  release(address: number): void {
    this.exports.release(address);
  }

  /** Returns `result`, or throws the {@link KontextError} that a negative one stands for. */
  check(result: number, errors: ErrorTable = {}): number {
    if (result >= 0) return result;
    const detail = this.exports.errorDetail();
    const describe = errors[result] ?? commonErrors[result];
    if (!describe) throw new Error(`The WASM module returned the unknown error ${result} (${detail}).`);
    const [code, message] = describe(detail);
    throw new KontextError(code, message, { detail });
  }

  #address(address: number, byteLength: number): number {
    if (address === 0) {
      throw new KontextError('out-of-memory', `The WASM memory cannot grow by ${byteLength} bytes.`, { byteLength });
    }
    return address >>> 0;
  }
}

/**
 * Starts the module: from the copy inside the bundle by default, else from `wasm` or `wasmUrl`.
 *
 * @throws KontextError `download-failed` when `wasmUrl` does not answer with WASM; `invalid-request` when the bytes are not this module
 */
export async function loadHost(options: HostOptions = {}): Promise<Host> {
  const source = options.wasm ?? (options.wasmUrl ? await fetchModule(options.wasmUrl) : await inlinedModule());
  try {
    const module = source instanceof WebAssembly.Module ? source : await WebAssembly.compile(source);
    return await start(module);
  } catch (cause) {
    throw new KontextError('invalid-request', `This is not kontext.wasm: ${(cause as Error).message}`, {}, { cause });
  }
}

async function start(module: WebAssembly.Module): Promise<Host> {
  const { exports } = await WebAssembly.instantiate(module, {});
  if (!isHost(exports)) throw new Error('its exports are those of another module');
  return new Host(exports as WebAssembly.Exports & HostExports, module);
}

async function inlinedModule(): Promise<Uint8Array<ArrayBuffer>> {
  const { deflatedWasmBase64 } = await import('./wasm.generated.ts');
  const deflated = Uint8Array.from(atob(deflatedWasmBase64), (char) => char.charCodeAt(0));
  const inflated = new Blob([deflated]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(inflated).arrayBuffer());
}

async function fetchModule(url: string | URL): Promise<ArrayBuffer> {
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return await response.arrayBuffer();
  } catch (cause) {
    throw new KontextError(
      'download-failed',
      `Could not fetch ${url}: ${(cause as Error).message}`,
      { url: String(url) },
      { cause },
    );
  }
}

function isHost(exports: WebAssembly.Exports): boolean {
  return exports.memory instanceof WebAssembly.Memory && typeof exports.scratch === 'function';
}
