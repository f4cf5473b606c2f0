// What `kontext serve` and `kontext worker` share: the optional packages, models by name, the log, the store.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { LoadOptions } from '../kontext/kontext.ts';
import { demoModel } from '../model/demo.ts';
import { Kontext } from '../node.ts';
import type { LocalModel, Logger } from '../server/index.ts';
import { type Flags, type FlagValues, usage } from './grammar.ts';
import { LORA_FLAGS, loraOptions } from './lora-flag.ts';
import { loadFlags, loadOptions, numberFrom } from './request-flags.ts';

export const SERVING_FLAGS = {
  model: {
    value: '[NAME=]PATH|URL|demo',
    list: true,
    help: 'a model, by a name of your choice; may be given several times (default: demo)',
  },
  ...loadFlags(),
  ...LORA_FLAGS,
  programs: { value: 'BUNDLE', help: 'folder or URL of programs compiled ahead of time' },
  adapter: { value: 'NAME', help: 'part of the GPU’s name, as doctor shows it: one process for each GPU' },
  redis: { value: 'URL', help: 'queue on Redis, shared by servers and workers, such as redis://localhost:6379' },
  store: { value: 'DIR', help: 'folder for pictures, shared by servers and workers (default: memory, or Redis)' },
  keep: { value: 'SECONDS', help: 'how long finished jobs and their pictures are kept (default: 3600)' },
  'log-level': {
    value: 'info|warn|error|silent',
    help: 'what is logged, as JSON lines; never prompts or pictures (default: info)',
  },
} as const satisfies Flags;

/** The server's module. @throws KontextError when one of its packages is not installed */
export async function serverModule(): Promise<typeof import('../server/index.ts')> {
  try {
    return await import('../server/index.ts');
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code !== 'ERR_MODULE_NOT_FOUND') throw cause;
    const missing = /'([^']+)'/.exec(message)?.[1] ?? 'a package';
    throw new KontextError(
      'invalid-request',
      `The server needs packages that are not installed (${missing}): npm install ${SERVER_PACKAGES}`,
      {},
      { cause },
    );
  }
}

/** Optional peers of the server; Redis needs `bullmq ioredis` too. */
export const SERVER_PACKAGES = 'hono @hono/node-server zod prom-client pino sharp';

/** pino, writing JSON lines to standard output. */
export async function openLog(values: FlagValues<Flags>): Promise<Logger> {
  const level = text(values['log-level']) ?? 'info';
  const levels = ['info', 'warn', 'error', 'silent'];
  if (!levels.includes(level)) throw usage(`--log-level is "${level}"; it must be one of ${levels.join(', ')}.`);
  const { pino } = await import('pino').catch((cause: unknown) => {
    throw new KontextError('invalid-request', `The log needs pino: npm install ${SERVER_PACKAGES}`, {}, { cause });
  });
  const log = pino({ level, base: null });
  return {
    info: (fields, message) => log.info(fields, message),
    warn: (fields, message) => log.warn(fields, message),
    error: (fields, message) => log.error(fields, message),
  };
}

/** Loads every `--model` and prepares nothing: programs are made by the first job of a shape. */
export async function loadModels(values: FlagValues<Flags>, signal: AbortSignal): Promise<LocalModel[]> {
  const given = (values.model as string[] | undefined) ?? ['demo'];
  const models: LocalModel[] = [];
  const programs = text(values.programs);
  const adapter = text(values.adapter);
  const options = {
    // One process, one kind of work: what is loaded stays.
    memory: 'resident',
    ...loadOptions(values),
    ...loraOptions(values as FlagValues<typeof LORA_FLAGS>),
    ...(programs !== undefined && { programs }),
    ...(adapter !== undefined && { device: { adapter } }),
    signal,
  } as LoadOptions;
  try {
    for (const word of given) {
      const { name, place } = namedPlace(word);
      if (models.some((model) => model.name === name)) throw usage(`Two models are called "${name}"; give NAME=PATH.`);
      const engine = await Kontext.load(place === 'demo' ? demoModel() : place, options);
      models.push({ name, engine, defaults: engine.defaults });
    }
    return models;
  } catch (error) {
    await closeModels(models);
    throw error;
  }
}

export async function closeModels(models: readonly LocalModel[]): Promise<void> {
  for (const { engine } of models) await engine.close();
}

/** Without a name, a model is called as its folder or file. */
function namedPlace(word: string): { name: string; place: string } {
  const [, given, rest] = /^([\w.-]+)=(.+)$/.exec(word) ?? [];
  const place = rest ?? word;
  const last =
    place
      .replace(/[/\\]+$/, '')
      .split(/[/\\]/)
      .at(-1) ?? place;
  return { name: given ?? last, place };
}

/** Milliseconds of `--keep`. */
export function keepMs(values: FlagValues<Flags>): number {
  const seconds = values.keep === undefined ? 3600 : numberFrom('keep', String(values.keep));
  if (!(seconds >= 1 && seconds <= 30 * 86_400)) throw usage(`--keep is ${seconds}; it must be 1 to 2592000 seconds.`);
  return seconds * 1000;
}

/** A whole number within bounds. */
export function wholeNumber(
  values: FlagValues<Flags>,
  flag: string,
  standard: number,
  min: number,
  max: number,
): number {
  const value = values[flag] === undefined ? standard : numberFrom(flag, String(values[flag]));
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw usage(`--${flag} is ${value}; it must be a whole number from ${min} to ${max}.`);
}

export function text(value: string | string[] | boolean | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** Resolves with the first signal to end. */
export function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
