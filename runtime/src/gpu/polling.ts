// Keeps Dawn's event polling from eating a processor core while a long computation runs.
// Dawn for Node asks the driver again on every turn of the event loop as long as a promise is pending: one core at 100 %
// (measured: 170 ms of main-thread time beside 140 ms on each core of a CPU adapter). A pause of 1 ms a turn ends that.

/** Waits shorter than this stay undelayed: tiny programs, readbacks. */
const EAGER_MS = 4;
const PAUSE_MS = 1;

let waiting = 0;
let since = 0;
const never = typeof SharedArrayBuffer === 'undefined' ? undefined : new Int32Array(new SharedArrayBuffer(4));

/** `work`, with pauses in the event loop until it settles. For waits on the GPU under Dawn in Node only. */
export function pausing<T>(work: Promise<T>): Promise<T> {
  if (waiting++ === 0) {
    since = performance.now();
    setImmediate(pause);
  }
  const done = () => {
    waiting--;
  };
  work.then(done, done);
  return work;
}

function pause(): void {
  if (waiting === 0) return;
  if (never && performance.now() - since > EAGER_MS) Atomics.wait(never, 0, 0, PAUSE_MS);
  setImmediate(pause);
}
