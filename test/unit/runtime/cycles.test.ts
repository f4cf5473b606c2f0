// Devices that are opened, used and closed, or lost, over and over: no thread of the driver stays behind.
import { describe, expect, it } from 'vitest';
import { Executable } from '../../../runtime/src/execute/executable.ts';
import { openDevice } from '../../../runtime/src/gpu/open.ts';
import { hasProc, processUse } from '../../support/process-use.ts';
import { busyProgram } from '../../support/tiny-program.ts';

async function cycle(lost: boolean): Promise<void> {
  const gpu = await openDevice();
  const exe = await Executable.create(gpu, busyProgram(2, 10));
  await exe.run();
  if (lost) {
    gpu.device.destroy();
    expect((await gpu.lost).code).toBe('device-lost');
  } else {
    await exe.dispose();
    gpu.destroy();
  }
  expect(gpu.memory).toEqual({ buffers: 0, bytes: 0 });
}

describe.runIf(hasProc)('open, run', () => {
  it.each([
    ['close', false],
    ['lose', true],
  ])('%s: threads and descriptors stay as they were', async (_, lost) => {
    const cycles = 12;
    for (let i = 0; i < 2; i++) await cycle(lost);
    const before = await processUse();
    for (let i = 0; i < cycles; i++) await cycle(lost);
    const after = await processUse();
    // A software driver keeps at least one thread for each device that is left.
    expect(after.threads).toBeLessThan(before.threads + cycles / 2);
    expect(after.files).toEqual(before.files);
  });
});
