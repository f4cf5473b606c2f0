// Packs the package as npm would publish it and installs the tarball into copies of test/package/projects.
// Without a network: everything an app needs besides is linked from the repository.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

const npm = (folder: string, ...args: string[]): string =>
  execFileSync('npm', [...args, '--offline', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: folder,
    encoding: 'utf8',
  });

/** A folder for everything, which the caller removes, and the path of the tarball in it. */
export function pack(): { folder: string; tarball: string } {
  const folder = mkdtempSync(join(tmpdir(), 'kontext-package-'));
  const [{ filename }] = JSON.parse(npm(root, 'pack', '--json', '--ignore-scripts', '--pack-destination', folder)) as [
    { filename: string },
  ];
  return { folder, tarball: join(folder, filename) };
}

/** Makes `folder` a project with nothing but the package in it. */
export function installInto(folder: string, { tarball }: { tarball: string }): void {
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'app', private: true, type: 'module' }));
  npm(folder, 'install', tarball);
}

/** @returns the folder of a fresh project with the files of `template` and the package installed */
export function install({ folder, tarball }: { folder: string; tarball: string }, name: string, template: string) {
  const project = join(folder, name);
  cpSync(join(root, 'test/package/projects', template), project, { recursive: true });
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name, private: true, type: 'module' }));
  npm(project, 'install', tarball);
  return project;
}
