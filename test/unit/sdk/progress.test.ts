// Time left against a simulated clock: machines whose true speeds are known, and what a user would have been told on them.
import { describe, expect, it } from 'vitest';
import { ProgressTracker } from '../../../sdk/src/kontext/progress.ts';
import type { ProgressEvent } from '../../../sdk/src/kontext/types.ts';

/** Work of one component, in the tracker's units, and what this machine takes for it. */
interface Part {
  component: string;
  kernels: number;
  bytes: number;
  /** Of one run. */
  size: number;
  runs: number;
  msPerSize: number;
}

interface Machine {
  msPerKernel: number;
  msPerByte: number;
  parts: Part[];
  /** How many times longer the first slice of each part takes, while the driver still compiles. */
  warmUp: number;
  /** How many times longer everything takes at a moment, for machines that others use too. */
  load?: (elapsedMs: number) => number;
}

interface Told {
  event: ProgressEvent;
  /** What it truly still took. */
  trueMs: number;
}

/** What a request on the machine tells, event by event. */
function simulate({ msPerKernel, msPerByte, parts, warmUp, load = () => 1 }: Machine): Told[] {
  let clock = 0;
  const events: { event: ProgressEvent; at: number }[] = [];
  const tracker = new ProgressTracker((event) => events.push({ event, at: clock }));
  const spend = (ms: number): number => {
    const spent = ms * load(clock);
    clock += spent;
    return spent;
  };
  for (const { component, kernels, bytes, size, runs } of parts) {
    tracker.plan(`compile ${component}`, kernels);
    tracker.plan(`load ${component}`, bytes);
    tracker.plan(`run ${component}`, size * runs);
  }
  for (const { component, kernels, bytes, size, runs, msPerSize } of parts) {
    tracker.send({ type: 'stage', stage: component === 'denoise' ? 'denoise' : 'encode-text' });
    for (let i = 1; i <= kernels; i++) {
      tracker.finish(`compile ${component}`, 1, spend(msPerKernel));
      tracker.send({ type: 'compile', component, done: i, total: kernels });
    }
    // Biases of a few bytes come between the matrices.
    const chunks = [0.0001, 0.3, 0.0001, 0.4, 0.2998];
    let loaded = 0;
    for (const share of chunks) {
      tracker.finish(`load ${component}`, share * bytes, spend(share * bytes * msPerByte + 2));
      loaded += share * bytes;
      tracker.send({ type: 'load', component, loadedBytes: loaded, totalBytes: bytes });
    }
    for (let step = 1; step <= runs; step++) {
      const slices = Math.max(1, Math.round((size * msPerSize) / 100));
      let stepMs = 0;
      for (let i = 0; i < slices; i++) {
        const slow = step === 1 && i === 0 ? warmUp : 1;
        const ms = spend(((size * msPerSize) / slices) * slow);
        stepMs += ms;
        tracker.finish(`run ${component}`, size / slices, ms);
      }
      if (component === 'denoise') tracker.send({ type: 'step', image: 0, step, steps: runs, stepMs });
    }
  }
  tracker.send({ type: 'done' });
  return events.map(({ event, at }) => ({ event, trueMs: clock - at }));
}

/** FLUX.1 Kontext at a megapixel: sizes in TFLOP, weights in GB. */
const flux = (more: Partial<Machine> = {}, steps = 28): Machine => ({
  msPerKernel: 40,
  msPerByte: 1000,
  warmUp: 3,
  parts: [
    { component: 'vae-encode', kernels: 33, bytes: 0.07, size: 4.5, runs: 1, msPerSize: 200 },
    { component: 'clip', kernels: 8, bytes: 0.25, size: 0.02, runs: 1, msPerSize: 400 },
    { component: 't5', kernels: 10, bytes: 9, size: 5, runs: 1, msPerSize: 120 },
    { component: 'modulation', kernels: 7, bytes: 6.5, size: 0.2, runs: 1, msPerSize: 900 },
    { component: 'denoise', kernels: 25, bytes: 17, size: 130, runs: steps, msPerSize: 100 },
    { component: 'vae-decode', kernels: 35, bytes: 0.1, size: 10, runs: 1, msPerSize: 200 },
  ],
  ...more,
});
/** A picture of 64×64, where all but the steps is as long as they are. */
const small = (): Machine => ({
  msPerKernel: 10,
  msPerByte: 5000,
  warmUp: 5,
  parts: [
    { component: 'vae-encode', kernels: 33, bytes: 0.01, size: 0.02, runs: 1, msPerSize: 8000 },
    { component: 't5', kernels: 10, bytes: 0.01, size: 0.002, runs: 1, msPerSize: 5000 },
    { component: 'denoise', kernels: 23, bytes: 0.02, size: 0.015, runs: 12, msPerSize: 4000 },
    { component: 'vae-decode', kernels: 35, bytes: 0.01, size: 0.04, runs: 1, msPerSize: 8000 },
  ],
});

const MACHINES: [string, Machine][] = [
  ['a large GPU', flux()],
  ['a small GPU', flux({ parts: flux().parts.map((part) => ({ ...part, msPerSize: 20 * part.msPerSize })) })],
  ['a slow disk', flux({ msPerByte: 8000 })],
  ['few steps', flux({}, 4)],
  ['a small picture', small()],
  ['a busy machine', flux({ load: (ms) => 1.2 + Math.sin(ms / 3000) })],
];

describe.each(MACHINES)('time left on %s', (_, machine) => {
  const told = simulate(machine);
  const known = told.filter(({ event }) => event.remainingMs !== undefined && event.type !== 'done');
  const firstStep = told.findIndex(({ event }) => event.type === 'step');
  // Where others use the machine too, its last second is anyone's guess.
  const busy = machine.load ? 2 : 1;
  const counts = ({ trueMs }: Told) => !machine.load || trueMs > told[0]!.trueMs / 10;

  it('never starts far from the truth', () => {
    for (const { event, trueMs } of known.filter(counts)) {
      const ratio = (event.remainingMs! + 200) / (trueMs + 200);
      expect(ratio, `${event.type} told ${event.remainingMs}, took ${trueMs}`).toBeLessThan(1.6 * busy);
      expect(ratio, `${event.type} told ${event.remainingMs}, took ${trueMs}`).toBeGreaterThan(0.4 / busy);
    }
    // And it is told before the steps begin, while weights load, or where all is over in seconds with the first step.
    expect(told.indexOf(known[0]!)).toBeLessThanOrEqual(told[0]!.trueMs > 10_000 ? firstStep - 1 : firstStep);
  });

  it('is close and never rises from the first step on', () => {
    let before = Number.POSITIVE_INFINITY;
    for (const { event, trueMs } of told.slice(firstStep)) {
      expect(event.remainingMs).toBeLessThanOrEqual(before);
      before = event.remainingMs!;
      if (!counts({ event, trueMs })) continue;
      expect((before + 200) / (trueMs + 200)).toBeLessThan(1.25 * busy);
      expect((before + 200) / (trueMs + 200)).toBeGreaterThan(0.6 / busy);
    }
    expect(before).toBe(0);
  });

  it('comes with a share that never falls and ends at 1', () => {
    const shares = told.map(({ event }) => event.progress);
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(shares.at(-1)).toBe(1);
  });
});
