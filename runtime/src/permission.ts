// Deno asks before a program reads, writes, loads libraries or connects; a refusal hides behind errors that blame something else.

/** What Deno was not allowed, as a sentence that says what to allow; undefined when this error has another reason. */
export function refusedPermission(error: unknown): string | undefined {
  let cause = error;
  for (let depth = 0; cause instanceof Error && depth < 8; depth++, cause = cause.cause) {
    // Packages wrap the message in their own, so the name alone does not tell.
    const [, kind, target] =
      /Requires (\w+) access(?: to (<?"?[^,\n]*?"?>?))?(?:, run again|$|\n)/.exec(cause.message) ?? [];
    if (kind) {
      return `Deno was started without the permission for it: ${kind}${target ? ` of ${target}` : ''}. Run it again with --allow-${kind}.`;
    }
  }
  return undefined;
}
