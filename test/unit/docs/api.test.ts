// docs/api against the sources: a docstring that was changed, or an export without one, must not leave the pages behind.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));

// Ten seconds of work, but of one core that may be busy.
it('is what npm run docs:api writes', () => {
  execFileSync(process.execPath, ['--import', 'tsx', 'scripts/write-api.ts', '--check'], {
    cwd: root,
    encoding: 'utf8',
  });
}, 600_000);
