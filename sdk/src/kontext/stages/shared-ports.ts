// Buffers that two programs of one transformer have in common: scene, prompt, result.
import type { Executable } from '../../../../runtime/src/execute/executable.ts';
import { adapterPorts } from '../../../../runtime/src/program/adapter-rooms.ts';
import type { Program } from '../../../../runtime/src/program/types.ts';

/**
 * Ports of `bound` that `other` has too, for binding it on the same buffers. Never those of adapters: each program has room of its own
 * layers and ranks, and fills it itself.
 */
export function sharedPorts(bound: Executable, other: Program): Record<string, GPUBuffer> {
  const own = adapterPorts(bound.program);
  const names = new Set(other.ports.map(({ name }) => name));
  const shared = bound.program.ports.filter(({ name }) => names.has(name) && !own.has(name));
  return Object.fromEntries(shared.map(({ name }) => [name, bound.port(name)]));
}
