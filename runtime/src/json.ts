// JSON from outside: what is wrong with it, without repeating what it says.
// A path that leads to the wrong file must not show that file's contents in a message or a log.

/** The engine's complaint about a text that is no JSON, as a place: engines quote the text itself. */
export function jsonProblem(error: unknown): string {
  const place = /(?:position|char(?:acter)?) (\d+)/.exec(String((error as Error)?.message))?.[1];
  return place === undefined ? 'it ends too early or holds something else' : `it goes wrong at character ${place}`;
}
