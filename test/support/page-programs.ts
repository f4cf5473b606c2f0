// Commands and programs of a page of the documentation, in the order a reader meets them.

/** One command line or one program. */
export interface Part {
  kind: 'command' | 'program';
  code: string;
}

/**
 * Blocks that say `sh` or `js` and nothing else: commands one a line, programs whole. Others (`sh skip`, `js vite`) are for other places
 * or are run by other tests.
 */
export function partsOf(markdown: string): Part[] {
  return [...markdown.matchAll(/^```(sh|js)\n([\s\S]*?)^```$/gm)].flatMap(([, language, code]): Part[] =>
    language === 'js'
      ? [{ kind: 'program', code: code! }]
      : code!
          .trim()
          .split('\n')
          .map((line) => ({ kind: 'command', code: line })),
  );
}

/** Files that a part says it writes. */
export function filesOf({ kind, code }: Part): string[] {
  if (kind === 'program') return [...code.matchAll(/saveImage\('([^']+)'/g)].map(([, file]) => file!);
  const output = /(?:-o|--svg|>) (\S+)$/.exec(code)?.[1] ?? /-o (\S+)/.exec(code)?.[1];
  // Several pictures are numbered.
  if (output && /--images [2-9]/.test(code)) return [output.replace(/(\.\w+)$/, '-1$1')];
  return output && output !== '-' ? [output] : [];
}
