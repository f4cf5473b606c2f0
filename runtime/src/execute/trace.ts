// Times of single dispatches on the GPU, for people (a table) and for Chrome's trace viewer (JSON).
// With FLOPs and bytes beside each time, the next thing worth speeding up is the top line.

/** One dispatch. */
export interface TraceEvent {
  label: string;
  /** The kernel's label. */
  kernel: string;
  /** Nanoseconds on the GPU's clock. */
  startNs: number;
  durationNs: number;
  flops: number;
  bytes: number;
}

interface TraceRow {
  label: string;
  count: number;
  milliseconds: number;
  share: number;
  gflops: number;
  gbytes: number;
}

export class Trace {
  constructor(
    readonly program: string,
    readonly events: readonly TraceEvent[],
  ) {}

  /** Sum of the dispatches' times; gaps between them are not in it. */
  get milliseconds(): number {
    return this.events.reduce((sum, event) => sum + event.durationNs, 0) / 1e6;
  }

  /**
   * Dispatches summed by `label` (numbers replaced by `N`, so that layer 3 and layer 4 are one line) or by kernel, slowest first.
   */
  rows(by: 'label' | 'kernel' = 'label'): TraceRow[] {
    const groups = new Map<string, TraceEvent[]>();
    for (const event of this.events) {
      const key = by === 'kernel' ? event.kernel : event.label.replace(/\d+/g, 'N');
      const group = groups.get(key);
      if (group) group.push(event);
      else groups.set(key, [event]);
    }
    const sum = (events: TraceEvent[], field: 'durationNs' | 'flops' | 'bytes') =>
      events.reduce((s, e) => s + e[field], 0);
    const total = this.milliseconds;
    return [...groups]
      .map(([label, events]) => {
        const ns = sum(events, 'durationNs');
        return {
          label,
          count: events.length,
          milliseconds: ns / 1e6,
          share: total > 0 ? ns / 1e6 / total : 0,
          gflops: ns > 0 ? sum(events, 'flops') / ns : 0,
          gbytes: ns > 0 ? sum(events, 'bytes') / ns : 0,
        };
      })
      .sort((a, b) => b.milliseconds - a.milliseconds);
  }

  /** The rows as text: time, share, GFLOP/s, GB/s, count, label. */
  table(by: 'label' | 'kernel' = 'label'): string {
    const lines = [`${this.program}: ${this.milliseconds.toFixed(3)} ms in ${this.events.length} dispatches`];
    lines.push('        ms      %    GFLOP/s      GB/s  count  label');
    for (const row of this.rows(by)) {
      lines.push(
        [
          row.milliseconds.toFixed(3).padStart(10),
          (row.share * 100).toFixed(1).padStart(6),
          row.gflops.toFixed(1).padStart(10),
          row.gbytes.toFixed(1).padStart(9),
          String(row.count).padStart(6),
          ` ${row.label}`,
        ].join(' '),
      );
    }
    return lines.join('\n');
  }

  /** For chrome://tracing and https://ui.perfetto.dev (the Trace Event Format's complete events, times in microseconds). */
  chromeTrace(): string {
    const origin = this.events[0]?.startNs ?? 0;
    return JSON.stringify({
      displayTimeUnit: 'ms',
      traceEvents: this.events.map((event) => ({
        name: event.label,
        cat: event.kernel,
        ph: 'X',
        pid: this.program,
        tid: 'GPU',
        ts: (event.startNs - origin) / 1e3,
        dur: event.durationNs / 1e3,
        args: {
          kernel: event.kernel,
          flops: event.flops,
          bytes: event.bytes,
          gflops: event.durationNs > 0 ? event.flops / event.durationNs : 0,
          gbytes: event.durationNs > 0 ? event.bytes / event.durationNs : 0,
        },
      })),
    });
  }
}
