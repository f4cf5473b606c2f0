// Writes docs/api from the docstrings of the package's entry points: `npm run docs:api`; with `--check` only compares.
// Any warning fails: an exported symbol without a docstring, a link to nothing, a type that is used but not exported.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Application } from 'typedoc';

const COMMITTED = 'docs/api';
const check = process.argv.includes('--check');
const out = check ? mkdtempSync(join(tmpdir(), 'kontext-api-')) : COMMITTED;

const app = await Application.bootstrapWithPlugins({ options: 'typedoc.json', out });
const project = await app.convert();
if (project) app.validate(project);
if (!project || app.logger.hasErrors() || app.logger.hasWarnings()) process.exit(1);
await app.generateOutputs(project);
if (check) {
  const stale = differences(out, COMMITTED);
  rmSync(out, { recursive: true });
  if (stale.length > 0) {
    console.error(`Stale in ${COMMITTED}: ${stale.join(', ')}. Run npm run docs:api and commit what it writes.`);
    process.exitCode = 1;
  }
}

/** Files that are in one folder only, or differ. */
function differences(made: string, committed: string): string[] {
  const names = [made, committed].flatMap((folder) =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1)),
  );
  const text = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);
  return [...new Set(names)].filter((name) => text(join(made, name)) !== text(join(committed, name)));
}
