// The packed package in Deno, by its npm name, with exactly the permissions that the guide lists; each one missing is told by name.
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { install, pack, root } from './project.ts';

const deno = join(root, 'node_modules/.bin/deno');
const found = spawnSync(deno, ['--version'], { encoding: 'utf8' });
if (found.status !== 0) console.log('Deno is not installed: its tests are skipped.');

const guide = readFileSync(join(root, 'docs/guide/web.md'), 'utf8');
/** As the guide has it: `deno run PERMISSIONS edit.ts`. */
const PERMISSIONS = /deno run ((?:--allow-\S+ )+)edit\.ts/.exec(guide)![1]!.trim().split(' ');
/** The guide's program. */
const PROGRAM = /```ts\n(import \{[^}]*\} from 'npm:kontext-webgpu';[\s\S]*?)```/.exec(guide)![1]!;

let packed: ReturnType<typeof pack>;
let project: string;

beforeAll(() => {
  packed = pack();
  project = install(packed, 'deno', 'deno');
  for (const name of ['webgpu', 'sharp', '@img', 'detect-libc', 'semver']) {
    cpSync(join(root, 'node_modules', name), join(project, 'node_modules', name), { recursive: true });
  }
  copyFileSync(join(root, 'examples/demo-model/inputs/apple-on-red.png'), join(project, 'scene.png'));
  writeFileSync(join(project, 'edit.ts'), PROGRAM);
});
afterAll(() => rmSync(packed.folder, { recursive: true }));

const run = (permissions: string[]) =>
  spawnSync(deno, ['run', '--no-prompt', ...permissions, 'edit.ts'], { cwd: project, encoding: 'utf8' });

describe.skipIf(found.status !== 0)('Deno', () => {
  it('runs the guide’s program with the permissions of the guide', () => {
    execFileSync(deno, ['run', '--no-prompt', ...PERMISSIONS, 'edit.ts'], { cwd: project, encoding: 'utf8' });
    expect(existsSync(join(project, 'blue.png'))).toBe(true);
  });

  it.each(PERMISSIONS)('says so without %s', (missing) => {
    const { stdout, stderr, status } = run(PERMISSIONS.filter((permission) => permission !== missing));
    expect(status).not.toBe(0);
    const [kind] = missing.split('=');
    expect(stdout + stderr).toMatch(new RegExp(`KontextError[\\s\\S]*${kind}\\b`));
  });
});
