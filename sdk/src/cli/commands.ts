// The table of commands: a row each, in the order help shows them. Each is loaded when it is called.
import type { Command } from './grammar.ts';

export const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  edit: async () => (await import('./commands/edit.ts')).edit,
  generate: async () => (await import('./commands/generate.ts')).generate,
  doctor: async () => (await import('./commands/doctor.ts')).doctor,
  download: async () => (await import('./commands/download.ts')).download,
  plan: async () => (await import('./commands/plan.ts')).plan,
  pack: async () => (await import('./commands/pack.ts')).pack,
  lock: async () => (await import('./commands/lock.ts')).lock,
  verify: async () => (await import('./commands/verify.ts')).verify,
  lora: async () => (await import('./commands/lora.ts')).lora,
  compile: async () => (await import('./commands/compile.ts')).compile,
  targets: async () => (await import('./commands/targets.ts')).targets,
  tune: async () => (await import('./commands/tune.ts')).tune,
  inspect: async () => (await import('./commands/inspect.ts')).inspect,
  serve: async () => (await import('./commands/serve.ts')).serve,
  worker: async () => (await import('./commands/worker.ts')).worker,
  key: async () => (await import('./commands/key.ts')).key,
};
