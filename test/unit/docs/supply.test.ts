// What the package owes to others and takes from others: licence texts in the tarball, a hash for every locked package.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const read = (name: string) => readFileSync(new URL(`../../../${name}`, import.meta.url), 'utf8');

it('licence texts travel with the package', () => {
  const { files } = JSON.parse(read('package.json')) as { files: string[] };
  expect(files).toEqual(expect.arrayContaining(['LICENSE', 'NOTICE']));
  expect(read('LICENSE')).toContain('TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION');
  const notice = read('NOTICE');
  for (const text of [
    'Copyright (c) 2021 OpenAI',
    'The above copyright notice and this permission notice shall be included',
  ]) {
    expect(notice).toContain(text);
  }
  expect(notice).toMatch(/UNICODE LICENSE V3[\s\S]*THE DATA FILES AND SOFTWARE ARE PROVIDED "AS IS"/);
});

it('every locked package has its hash, and none its registry', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { integrity?: string; resolved?: string; link?: boolean }>;
  };
  const locked = Object.entries(packages).filter(([path, { link }]) => path !== '' && !link);
  expect(locked.length).toBeGreaterThan(100);
  expect(locked.filter(([, { integrity }]) => !integrity?.startsWith('sha512-')).map(([path]) => path)).toEqual([]);
  expect(locked.filter(([, { resolved }]) => resolved !== undefined).map(([path]) => path)).toEqual([]);
});
