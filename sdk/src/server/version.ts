// The package's version, read from its package.json, which lies above this file both in the sources and in dist.
import { existsSync, readFileSync } from 'node:fs';

/** As published. */
export const VERSION: string = findVersion();

function findVersion(): string {
  for (let folder = new URL('.', import.meta.url); ; folder = new URL('..', folder)) {
    const file = new URL('package.json', folder);
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
    if (folder.pathname === '/') return 'unknown';
  }
}
