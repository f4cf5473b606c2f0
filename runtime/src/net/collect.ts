// Everything a stream gives, up to a limit: for bodies of requests and answers, and for what unpacks.
// A sender says what it likes about its length, so nothing is believed but what arrived.

/**
 * @param tooMuch makes the error to throw as soon as more than `limit` bytes came; the rest is not read
 * @param read waits for the next piece, for those who watch the clock
 */
export async function collect(
  stream: ReadableStream<Uint8Array> | null,
  limit: number,
  tooMuch: () => Error,
  read: <T>(next: Promise<T>) => Promise<T> = (next) => next,
): Promise<Uint8Array<ArrayBuffer>> {
  const reader = stream?.getReader();
  if (!reader) return new Uint8Array(0);
  const pieces: Uint8Array[] = [];
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await read(reader.read());
      if (done) break;
      length += value.length;
      if (length > limit) throw tooMuch();
      pieces.push(value);
    }
  } finally {
    // Without this the rest would still be downloaded. A no-op at the end.
    void reader.cancel().catch(() => {});
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
