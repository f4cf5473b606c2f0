// A GPU that never comes back: which dispatch it was in is told, the device is given up, and another one works.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Executable } from '../../../runtime/src/execute/executable.ts';
import type { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import { openDevice } from '../../../runtime/src/gpu/open.ts';
import { busyProgram } from '../../support/tiny-program.ts';

let gpu: KontextDevice;
beforeEach(async () => {
  gpu = await openDevice({ hangMs: 100 });
});
afterEach(() => gpu.destroy());

/** From the n-th wait on, the GPU has not finished. Dawn's own object is replaced: no driver here can be made to hang. */
function hangAfter(waits: number): void {
  const { queue } = gpu.device;
  const done = queue.onSubmittedWorkDone.bind(queue);
  queue.onSubmittedWorkDone = () => (waits-- > 0 ? done() : new Promise(() => {}));
}

const outcome = (work: Promise<unknown>) => work.catch((error: unknown) => error);

describe('a dispatch that never comes back', () => {
  it('is named exactly in the first run of a program from outside', async () => {
    const exe = await Executable.create(gpu, busyProgram(8, 10), { foreign: true });
    hangAfter(5);
    expect(await outcome(exe.run())).toMatchObject({
      code: 'device-lost',
      message: expect.stringMatching(/did not come back within .* in dispatch "busy\.5" of "busy 8"/),
      details: { reason: 'hung', dispatches: ['busy.5'] },
    });
    expect((await gpu.lost).details).toMatchObject({ reason: 'hung' });
    expect(await outcome(exe.run())).toMatchObject({ code: 'device-lost' });
    await exe.dispose();
  });

  it('is named with those submitted together in later runs', async () => {
    const exe = await Executable.create(gpu, busyProgram(4, 10), { foreign: true });
    const first = await exe.run();
    expect(first.slices).toBe(4);
    const second = await exe.run();
    expect(second.slices).toBeLessThan(4);
    hangAfter(0);
    const error = await outcome(exe.run());
    expect(error).toMatchObject({ code: 'device-lost', details: { reason: 'hung', program: 'busy 4' } });
    expect((error as { details: { dispatches: string[] } }).details.dispatches[0]).toBe('busy.0');
  });

  it('is named when the driver takes the device away', async () => {
    const exe = await Executable.create(gpu, busyProgram(3, 10), { foreign: true });
    hangAfter(1);
    const running = outcome(exe.run());
    await new Promise((resolve) => setTimeout(resolve, 30));
    gpu.device.destroy();
    expect(await running).toMatchObject({
      code: 'device-lost',
      message: expect.stringContaining('It happened in dispatch "busy.'),
    });
  });

  it('leaves a healthy device alone', async () => {
    const exe = await Executable.create(gpu, busyProgram(3, 10));
    await exe.run();
    await new Promise((resolve) => setTimeout(resolve, 200));
    await exe.run();
    await exe.dispose();
  });
});
