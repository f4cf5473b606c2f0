// How choosers read measured schedules: a profile may pick among the schedules this version knows, and say nothing else.
// So a profile from elsewhere, or of another version, can make kernels slower but never wrong.

/** A kind of product whose schedules can be measured. */
export type TunedFamily = 'matmul' | 'conv2d' | 'attention';

/** All of them. */
export const TUNED_FAMILIES: readonly TunedFamily[] = ['matmul', 'conv2d', 'attention'];

/** Schedules measured best on a device: family name, then a shape key, then the schedule record. */
export type TunedSchedules = Partial<Record<string, Readonly<Record<string, Readonly<Record<string, unknown>>>>>>;

/**
 * @param candidates what the shape may be given on this target; asked for only when the profile has something for it
 * @returns the measured schedule; undefined when there is none, or none of this version that fits the target
 */
export function tunedSchedule<S extends object>(
  target: { tuned?: TunedSchedules },
  family: TunedFamily,
  key: string,
  candidates: () => readonly S[],
): S | undefined {
  const shapes = target.tuned?.[family];
  const measured = shapes && Object.hasOwn(shapes, key) ? shapes[key] : undefined;
  return measured && candidates().find((candidate) => sameSchedule(candidate, measured));
}

/** Whether two records have the same fields, in any order. */
export function sameSchedule(a: object, b: object): boolean {
  return canonical(a) === canonical(b);
}

function canonical(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? '';
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([name, field]) => `${name}:${canonical(field)}`).join()}}`;
}
