// Calls an app's listener: what it throws is its own affair and must not end an edit that took minutes.

/**
 * Passes `event` on. What the listener throws, or its promise rejects with, goes to the console as an uncaught error would.
 *
 * @param name of the option, for the message
 */
export function tell<T>(name: string, listener: ((event: T) => unknown) | undefined, event: T): void {
  const told = (error: unknown) => console.error(`kontext-webgpu: ${name} threw; the request goes on.`, error);
  try {
    const answer = listener?.(event) as { then?: unknown } | undefined;
    if (typeof answer?.then === 'function') Promise.resolve(answer).catch(told);
  } catch (error) {
    told(error);
  }
}
