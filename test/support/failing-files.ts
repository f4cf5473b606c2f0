// A file system whose n-th call fails, in the place of `node:fs/promises`:
//   vi.mock('node:fs/promises', async (load) => (await import('PATH/failing-files.ts')).failingFiles(await load()));
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Which call fails (0: none), how many there have been, and with what the system says. */
export const fault = { at: 0, calls: 0, code: '' };

/** Lets every call do its work. */
export const noFault = (): void => void Object.assign(fault, { at: 0, calls: 0 });

/** The `at`-th call from now fails. */
export const failAt = (at: number): void =>
  void Object.assign(fault, { at, calls: 0, code: ['ENOSPC', 'EIO', 'EMFILE'][at % 3] });

const FUNCTIONS = ['open', 'writeFile', 'rename', 'link', 'copyFile', 'chmod', 'mkdir', 'readdir', 'stat', 'realpath'];
const OF_HANDLES = ['writeFile', 'appendFile', 'write', 'sync', 'truncate', 'stat', 'read', 'close'];

type Call = (...args: unknown[]) => Promise<unknown>;

export function failingFiles(real: Record<string, unknown>): Record<string, unknown> {
  const due = (syscall: string) => {
    if (++fault.calls !== fault.at) return;
    throw Object.assign(new Error(`${fault.code}: injected, ${syscall}`), { code: fault.code, syscall, errno: -1 });
  };
  const wrapped = Object.fromEntries(
    FUNCTIONS.map((name) => [
      name,
      async (...args: unknown[]) => {
        due(name);
        const made = await (real[name] as Call)(...args);
        return name === 'open' ? failingHandle(made as object) : made;
      },
    ]),
  );
  const failingHandle = (handle: object): object =>
    new Proxy(handle, {
      get(target, name) {
        const value = Reflect.get(target, name, target);
        if (typeof value !== 'function') return value;
        return async (...args: unknown[]) => {
          // A descriptor is given back also when the system complains of what it had still to write.
          if (name === 'close') await value.apply(target, args);
          if (OF_HANDLES.includes(String(name))) due(String(name));
          return name === 'close' ? undefined : value.apply(target, args);
        };
      },
    });
  return { ...real, ...wrapped, default: { ...real, ...wrapped } };
}

/** Every file below a folder, with its contents. */
export function contents(folder: string): Record<string, string> {
  if (!existsSync(folder)) return {};
  const names = readdirSync(folder, { recursive: true }).map(String).sort();
  return Object.fromEntries(
    names
      .filter((name) => statSync(join(folder, name)).isFile())
      .map((name) => [name, readFileSync(join(folder, name), 'latin1')]),
  );
}
