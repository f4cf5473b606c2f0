// Waits for parallel work without leaving any of it running behind a failure.

/** Resolves when all did; after a failure waits for the rest, then throws the first. `onFailure` may stop the others. */
export async function allOrNone(work: Promise<unknown>[], onFailure?: (error: unknown) => void): Promise<void> {
  let failure: { error: unknown } | undefined;
  await Promise.all(
    work.map((promise) =>
      promise.catch((error: unknown) => {
        if (failure) return;
        failure = { error };
        onFailure?.(error);
      }),
    ),
  );
  if (failure) throw failure.error;
}
