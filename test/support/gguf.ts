// Writes GGUF files for tests, well-formed or not: nothing here checks anything.

export interface GgufTensor {
  name: string;
  /** As everywhere: fastest axis last. */
  shape: number[];
  /** ggml's number of the type. */
  type: number;
  data: Uint8Array;
  /** Written in place of the right one. */
  offset?: number;
}

export interface GgufOptions {
  version?: number;
  alignment?: number;
  metadata?: Record<string, string | number | number[] | string[]>;
  /** Written in place of the right counts. */
  tensorCount?: bigint;
  valueCount?: bigint;
}

export function ggufBytes(tensors: GgufTensor[], options: GgufOptions = {}): Uint8Array<ArrayBuffer> {
  const { version = 3, alignment = 32, metadata = {} } = options;
  const out: number[] = [];
  const number = (value: bigint | number, bytes: number) => {
    for (let i = 0n; i < bytes; i++) out.push(Number((BigInt(value) >> (8n * i)) & 255n));
  };
  const text = (value: string) => {
    const bytes = new TextEncoder().encode(value);
    number(bytes.length, 8);
    out.push(...bytes);
  };
  const values: GgufOptions['metadata'] = { ...metadata, ...(alignment !== 32 && { 'general.alignment': alignment }) };
  out.push(...new TextEncoder().encode('GGUF'));
  number(version, 4);
  number(options.tensorCount ?? tensors.length, 8);
  number(options.valueCount ?? Object.keys(values).length, 8);
  for (const [key, value] of Object.entries(values)) {
    text(key);
    if (typeof value === 'string') {
      number(8, 4);
      text(value);
    } else if (typeof value === 'number') {
      number(4, 4);
      number(value, 4);
    } else {
      number(9, 4);
      const strings = typeof value[0] === 'string';
      number(strings ? 8 : 5, 4);
      number(value.length, 8);
      for (const item of value) {
        if (typeof item === 'string') text(item);
        else number(item, 4);
      }
    }
  }
  const padded = (n: number) => Math.ceil(n / Math.max(1, alignment)) * Math.max(1, alignment);
  let offset = 0;
  for (const tensor of tensors) {
    text(tensor.name);
    number(tensor.shape.length, 4);
    for (const n of [...tensor.shape].reverse()) number(n, 8);
    number(tensor.type, 4);
    number(tensor.offset ?? offset, 8);
    offset = padded(offset + tensor.data.length);
  }
  while (out.length % Math.max(1, alignment)) out.push(0);
  for (const { data } of tensors) {
    for (const byte of data) out.push(byte);
    while (out.length % Math.max(1, alignment)) out.push(0);
  }
  return Uint8Array.from(out);
}
