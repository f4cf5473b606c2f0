// Options on their way over HTTP: none is dropped, and none clashes with what the server fills in.
import { expect, it } from 'vitest';
import { connect } from '../../sdk/src/remote/remote.ts';
import { jobFrom } from '../../sdk/src/server/http/job-request.ts';
import { generationBody } from '../../sdk/src/server/http/schema.ts';
import type { OfferedModel } from '../../sdk/src/server/jobs/types.ts';

const context = {
  id: 'a',
  client: { id: 'b', priority: 5 },
  pictures: [],
  models: [{ name: 'demo', defaults: { steps: 12 } } as unknown as OfferedModel],
};
const jobOf = (kontext: object, more: object = {}) =>
  jobFrom(generationBody.parse({ prompt: 'x', size: '64x64', kontext, ...more }), context).request;

it('own sigmas bring their number of steps along; else the quality and the model say it', () => {
  expect(jobOf({ sigmas: [1, 0.6, 0.3] })).not.toHaveProperty('steps');
  expect(jobOf({ sigmas: [1, 0.6], steps: 2 })).toMatchObject({ steps: 2 });
  expect(() => jobOf({ sigmas: [1, 0.6], steps: 3 })).toThrow(/there are 2 sigmas. Leave out steps/);
  expect(jobOf({})).toMatchObject({ steps: 12 });
  expect(jobOf({}, { quality: 'low' })).toMatchObject({ steps: 4 });
});

it.each([
  ['choose', () => 0],
  ['control', { width: 1, height: 1, data: new Uint8ClampedArray(4) }],
  ['latents', new Float32Array(64)],
  ['output', 'latents'],
])('%s is refused by a remote engine before anything is sent', async (name, value) => {
  const request = { prompt: 'x', variants: 2, [name]: value };
  // Nobody listens there.
  const remote = connect('http://127.0.0.1:9/');
  await expect(remote.generate(request as never)).rejects.toMatchObject({
    code: 'invalid-request',
    message: expect.stringContaining(`${name} is not possible over HTTP`),
  });
});
