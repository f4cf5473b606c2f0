// `kontext tune` as a user runs it: from a folder and from the hub to a profile that an edit takes, and every wrong flag.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { checkTuning } from '../../sdk/src/tune/profile.ts';
import { commandLine as kontext } from '../support/command-line.ts';
import { filesBelow, hubServer } from '../support/hub-server.ts';
import { pipelineRuns, writePipelineModel } from '../support/pipeline-model.ts';

const TIMEOUT = 600_000;
const BRIEF = ['--size', '32x32', '--minutes', '0.03', '--json'];
let folder: string;
let model: string;
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-tune-'));
  model = at('model');
  writePipelineModel(model);
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

it('writes a profile that an edit on this adapter takes', { timeout: TIMEOUT }, async () => {
  const tuned = await kontext('tune', '--model', model, ...BRIEF, '-o', at('tuning.json'));
  expect(tuned).toMatchObject({ code: 0, err: '' });
  const { gain, left, output } = JSON.parse(tuned.out);
  expect(gain).toBeGreaterThanOrEqual(1);
  expect(left).toBeGreaterThan(0);
  const profile = JSON.parse(readFileSync(output, 'utf8'));
  expect(checkTuning(profile)).toEqual(profile);

  const image = pipelineRuns().find(({ name }) => name === 'edit')!.image!;
  const edit = (...more: string[]) =>
    kontext(
      ...['edit', image, 'grey', '--model', model, '--no-auto-resize', '--width', '32', '--height', '32'],
      ...['--steps', '1', '--seed', '1', '--max-sequence-length', '24', '--quiet', ...more],
    );
  expect(await edit('--profile', output, '-o', at('tuned.png'))).toMatchObject({ code: 0, err: '' });
  const elsewhere = { ...profile, adapter: { ...profile.adapter, description: 'another GPU' } };
  expect(elsewhere).not.toEqual(profile);
  const { writeWhole } = await import('../../sdk/src/files/whole.ts');
  await writeWhole(at('elsewhere.json'), JSON.stringify(elsewhere));
  const refused = await edit('--profile', at('elsewhere.json'), '-o', at('refused.png'));
  expect(refused.code).not.toBe(0);
  expect(refused.err).toMatch(/another GPU/);
  expect(existsSync(at('refused.png'))).toBe(false);
});

it('reads no weights of a model on the hub', { timeout: TIMEOUT }, async () => {
  const files = filesBelow(model);
  const hub = await hubServer(files);
  vi.stubEnv('HF_ENDPOINT', hub.endpoint);
  vi.stubEnv('XDG_CACHE_HOME', at('cache'));
  const { code, err } = await kontext('tune', '--model', 'hf:owner/model', ...BRIEF, '-o', at('hub.json'));
  hub.close();
  expect(err).toBe('');
  expect(code).toBe(0);
  expect(checkTuning(JSON.parse(readFileSync(at('hub.json'), 'utf8')))).toBeTruthy();
  const isWeights = (name: string) => name.endsWith('.safetensors');
  const names = new Map([...files].map(([name, bytes]) => [createHash('sha256').update(bytes).digest('hex'), name]));
  const asked = hub.log.filter(({ path, host }) => host === 'storage' && isWeights(names.get(path.slice(1, 65))!));
  expect(asked.length).toBeGreaterThan(0);
  const bytes = asked.reduce((sum, { range }) => {
    const [first, last] = /(\d+)-(\d+)/.exec(range!)!.slice(1).map(Number);
    return sum + last! - first! + 1;
  }, 0);
  const weights = [...files].reduce((sum, [name, { length }]) => sum + (isWeights(name) ? length : 0), 0);
  expect(bytes).toBeLessThan(weights / 2);
});

it.each([
  [['folder'], /takes no words/],
  [['--minutes', '0'], /--minutes/],
  [['--minutes', 'soon'], /minutes/],
  [['--size', '100x100'], /multiples of 16/],
  [['--reference', 'large'], /"large" is no size/],
  [['--quantization', 'q3'], /none, f16, q8, q4/],
  [['--precision', 'f64'], /precision/],
])('refuses %j before anything is written', { timeout: TIMEOUT }, async (args, message) => {
  const { code, err } = await kontext('tune', ...args, '-o', at('wrong.json'));
  expect(code).toBe(2);
  expect(err).toMatch(message);
  expect(existsSync(at('wrong.json'))).toBe(false);
});
