// JSON from outside: what is wrong with it, without repeating what it says, and names that occur twice.
// A path that leads to the wrong file must not show that file's contents in a message or a log.

/** The engine's complaint about a text that is no JSON, as a place: engines quote the text itself. */
export function jsonProblem(error: unknown): string {
  const place = /(?:position|char(?:acter)?) (\d+)/.exec(String((error as Error)?.message))?.[1];
  return place === undefined ? 'it ends too early or holds something else' : `it goes wrong at character ${place}`;
}

/**
 * A name that one object of a JSON text has twice; `JSON.parse` keeps the last, other readers the first.
 *
 * @param text valid JSON
 */
export function duplicateKey(text: string): string | undefined {
  const objects: (Set<string> | undefined)[] = [];
  let keyNext = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '{') objects.push(new Set());
    else if (char === '[') objects.push(undefined);
    else if (char === '}' || char === ']') objects.pop();
    else if (char === '"') {
      const start = at;
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++;
      const names = objects.at(-1);
      if (names && keyNext) {
        const name = JSON.parse(text.slice(start, at + 1)) as string;
        if (names.has(name)) return name;
        names.add(name);
      }
    }
    if (char === '{' || char === ',') keyNext = true;
    else if (char === ':' || char === '[') keyNext = false;
  }
  return undefined;
}
