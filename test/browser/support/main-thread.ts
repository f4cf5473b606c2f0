// How long a page's main thread was busy at a stretch, from a Chromium trace with the category `toplevel`.
// By the thread's processor time and by the clock: on a busy machine a task that does nothing can take long by the clock.

interface TraceEvent {
  name: string;
  ph: string;
  pid: number;
  tid: number;
  /** Microseconds by the clock, and of processor time. */
  dur?: number;
  tdur?: number;
  args: { name?: string };
}

/** The longest tasks that a renderer's main thread ran while the trace was taken. */
export function longestTasks(trace: Buffer): { processorMs: number; clockMs: number } {
  const { traceEvents } = JSON.parse(trace.toString('utf8')) as { traceEvents: TraceEvent[] };
  const threadOf = ({ pid, tid }: TraceEvent) => `${pid} ${tid}`;
  const main = new Set(
    traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(threadOf),
  );
  const tasks = traceEvents.filter((event) => event.ph === 'X' && main.has(threadOf(event)));
  const longest = (time: 'dur' | 'tdur') => tasks.reduce((most, task) => Math.max(most, task[time] ?? 0), 0) / 1000;
  return { processorMs: longest('tdur'), clockMs: longest('dur') };
}
