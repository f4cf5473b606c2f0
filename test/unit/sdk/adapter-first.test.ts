// Without a usable adapter nothing of a model is asked for: a download of gigabytes would be for nothing.
import { expect, it } from 'vitest';
import { Engine } from '../../../sdk/src/kontext/kontext.ts';
import type { ModelFiles } from '../../../sdk/src/model/files.ts';

it('asks for an adapter before any file of the model', async () => {
  const asked: string[] = [];
  const files: ModelFiles = {
    label: 'counting',
    async open(name) {
      asked.push(name);
      return undefined;
    },
  };
  const platform = { decodeImage: () => Promise.reject(new Error('no pictures here')) };
  const gpu = {
    requestAdapter: async () => {
      asked.push('adapter');
      return null;
    },
  };
  await expect(Engine.open(platform, files, { device: { gpu } })).rejects.toMatchObject({ code: 'webgpu-unavailable' });
  expect(asked).toEqual(['adapter']);
});
