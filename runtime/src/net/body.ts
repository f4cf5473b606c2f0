// Reads the body of an answer up to what was asked for and no further, however much the server sends.
import { KontextError } from '../errors.ts';
import { collect } from './collect.ts';
import type { Answer } from './request.ts';
import { shownUrl } from './retry.ts';

/**
 * Fills `into` from `filled` on. Returns when it is full or the body ends; a body that goes on is cancelled, not read.
 *
 * @param onBytes told of each arrival: a cut connection leaves what came before in place
 * @returns whether there was more
 */
export async function readInto(
  { response, guard }: Answer,
  into: Uint8Array,
  filled: number,
  onBytes: (filled: number) => void,
): Promise<boolean> {
  const reader = response.body?.getReader();
  if (!reader) return false;
  try {
    let at = filled;
    for (;;) {
      const { done, value } = await guard.watch(reader.read());
      if (done) return false;
      guard.touch();
      const fits = value.subarray(0, into.length - at);
      into.set(fits, at);
      at += fits.length;
      onBytes(at);
      if (fits.length < value.length) return true;
    }
  } finally {
    // Without this the rest would still be downloaded. A no-op at the end of the body.
    void reader.cancel().catch(() => {});
  }
}

/** The whole body. @throws KontextError `download-failed` when it has more than `limit` bytes, whatever its headers say */
export async function readAll(answer: Answer, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const { response, guard } = answer;
  const declared = Number(response.headers.get('content-length') ?? Number.NaN);
  if (declared > limit) {
    await response.body?.cancel();
    throw tooLarge(response.url || answer.url.href, limit);
  }
  const bytes = await collect(
    response.body,
    limit,
    () => tooLarge(answer.url.href, limit),
    async (next) => {
      const piece = await guard.watch(next);
      guard.touch();
      return piece;
    },
  );
  // A body that ended early; a compressed one has another length than its header says.
  if (response.body && bytes.length < declared && isIdentity(response)) {
    throw new Error(`the server sent ${bytes.length} bytes of ${declared}`);
  }
  return bytes;
}

/** Whether the body's bytes are the file's. */
export function isIdentity(response: Response): boolean {
  return (response.headers.get('content-encoding') ?? 'identity') === 'identity';
}

function tooLarge(url: string, limit: number): KontextError {
  const shown = shownUrl(url);
  return new KontextError('download-failed', `${shown} has more than the ${limit} bytes that are read of it.`, {
    url: shown,
    limit,
  });
}
