// Is this program sound, and can this device run it? Both are asked before anything is allocated.
// Programs come from files and caches too, so their JSON is untrusted.

import { KontextError, shown } from '../errors.ts';
import type { AdapterReport } from '../gpu/report.ts';
import { jsonProblem } from '../json.ts';
import { columnsUnit, storedLayout, WEIGHT_FORMATS } from './formats.ts';
import {
  type BindingAccess,
  type BufferKind,
  type BufferRange,
  type Dispatch,
  type ElementType,
  PROGRAM_SCHEMA,
  type Program,
} from './types.ts';

/** What {@link checkProgram} reads of an `AdapterReport`. */
export type DeviceFacts = Pick<AdapterReport, 'features' | 'limits' | 'subgroupSize' | 'subgroupMatrixConfigs'>;

/**
 * Compares what a program assumes with what a device offers.
 *
 * @throws `feature-missing`, `limit-too-small`, `program-mismatch` (subgroup size) with the exact missing item
 */
export function checkProgram(program: Program, device: DeviceFacts): void {
  const { features, limits, subgroupSize, subgroupMatrix } = program.requires;
  for (const feature of features) {
    if (device.features.includes(feature)) continue;
    throw new KontextError(
      'feature-missing',
      `"${program.label}" needs the WebGPU feature "${feature}", which this device lacks. Compile it for another target.`,
      { feature, program: program.label },
    );
  }
  for (const [limit, needed] of Object.entries(limits)) {
    const available = device.limits[limit];
    // Alignment limits are better when smaller; all others when larger.
    const enough = available !== undefined && (limit.startsWith('min') ? available <= needed : available >= needed);
    if (enough) continue;
    throw new KontextError(
      'limit-too-small',
      `"${program.label}" needs ${limit} of ${needed}; this device offers ${available ?? 'none'}. Compile it for another target.`,
      { limit, needed, available, program: program.label },
    );
  }
  if (subgroupSize) {
    const { min, max } = device.subgroupSize ?? { min: 0, max: 0 };
    // A kernel that asks for its size needs it among the device's; others must cope with whichever they get.
    const fits = features.includes('subgroup-size-control')
      ? min <= subgroupSize.min && max >= subgroupSize.max
      : min >= subgroupSize.min && max <= subgroupSize.max;
    if (!fits) {
      throw new KontextError(
        'program-mismatch',
        `"${program.label}" is made for subgroups of ${subgroupSize.min} to ${subgroupSize.max}; this device has ${min} to ${max}.`,
        { needed: subgroupSize, available: device.subgroupSize, program: program.label },
      );
    }
  }
  if (subgroupMatrix) {
    const { m, n, k, componentType, resultType } = subgroupMatrix;
    const same = device.subgroupMatrixConfigs.some(
      (c) => c.m === m && c.n === n && c.k === k && c.componentType === componentType && c.resultType === resultType,
    );
    if (!same) {
      throw new KontextError(
        'feature-missing',
        `"${program.label}" needs ${m}×${n}×${k} subgroup matrices of ${componentType} with ${resultType} results, which this device lacks.`,
        { subgroupMatrix, available: device.subgroupMatrixConfigs, program: program.label },
      );
    }
  }
}

/**
 * Checks a value from outside to be a {@link Program} whose every index and range is inside its bounds.
 *
 * @returns the same object, typed
 * @throws `program-mismatch` for another schema version, `program-invalid` with the path of what is wrong
 */
export function validateProgram(json: unknown): Program {
  const program = record(json, 'program') as unknown as Program;
  if (program.schema !== PROGRAM_SCHEMA) {
    throw new KontextError(
      'program-mismatch',
      `The program has schema ${shown(program.schema)}; this runtime reads ${PROGRAM_SCHEMA}. Compile it again with the same version of the package.`,
      { schema: program.schema, supported: PROGRAM_SCHEMA },
    );
  }
  text(program.component, 'component');
  text(program.label, 'label');
  record(program.facts, 'facts');
  validateRequirements(program.requires);
  list(program.ports, 'ports').forEach((port, i) => {
    const at = `ports[${i}]`;
    text(record(port, at).name, `${at}.name`);
    oneOf(port.direction, DIRECTIONS, `${at}.direction`);
    oneOf(port.type, ELEMENT_TYPES, `${at}.type`);
    list(port.shape, `${at}.shape`).forEach((n) => {
      integer(n, `${at}.shape`, 1);
    });
    integer(port.bytes, `${at}.bytes`, 1);
    if (program.ports.findIndex((other) => other.name === port.name) !== i) fail(`${at}.name`, 'is not unique');
  });
  list(program.slabs, 'slabs').forEach((bytes, i) => {
    integer(bytes, `slabs[${i}]`, 1);
  });
  validateWeights(program);
  list(program.constants, 'constants').forEach((constant, i) => {
    const at = `constants[${i}]`;
    oneOf(record(constant, at).type, ELEMENT_TYPES, `${at}.type`);
    text(constant.data, `${at}.data`);
    integer(constant.bytes, `${at}.bytes`, 1);
  });
  list(program.kernels, 'kernels').forEach((kernel, i) => {
    const at = `kernels[${i}]`;
    text(record(kernel, at).label, `${at}.label`);
    text(kernel.wgsl, `${at}.wgsl`);
    list(kernel.bindings, `${at}.bindings`).forEach((access) => {
      oneOf(access, ACCESSES, `${at}.bindings`);
    });
  });
  const bytesOf = bufferSizes(program);
  list(program.dispatches, 'dispatches').forEach((dispatch, i) => {
    validateDispatch(program, dispatch, `dispatches[${i}]`, bytesOf);
  });
  return program;
}

/** Reads a program that was saved as JSON text. */
export function decodeProgram(json: string): Program {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw new KontextError('program-invalid', `The program is not JSON: ${jsonProblem(cause)}.`);
  }
  return validateProgram(value);
}

/** A constant's bytes; base64 of exactly the promised length. */
export function constantBytes({ data, bytes }: { data: string; bytes: number }): Uint8Array<ArrayBuffer> {
  let binary: string;
  try {
    binary = atob(data);
  } catch (cause) {
    throw new KontextError('program-invalid', 'A constant of the program is not base64.', {}, { cause });
  }
  if (binary.length !== bytes) fail('constants', `has ${binary.length} bytes instead of ${bytes}`);
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

const DIRECTIONS = ['in', 'out', 'inout'] as const;
const ELEMENT_TYPES = ['f32', 'f16', 'u32', 'i32'] as const satisfies ElementType[];
const LAYOUTS = ['matrix', 'ohwi'] as const;
const ACCESSES = ['read', 'read_write', 'uniform'] as const satisfies BindingAccess[];
const KINDS = ['port', 'slab', 'weight', 'constant'] as const satisfies BufferKind[];

/** @param value `requires` of a program or of a bundle's entry, untrusted */
export function validateRequirements(value: unknown): void {
  const requires = record(value, 'requires');
  list(requires.features, 'requires.features').forEach((name) => {
    text(name, 'requires.features');
  });
  for (const [name, value] of Object.entries(record(requires.limits, 'requires.limits'))) {
    integer(value, `requires.limits.${name}`, 0);
  }
  if (requires.subgroupSize !== undefined) {
    const range = record(requires.subgroupSize, 'requires.subgroupSize');
    integer(range.min, 'requires.subgroupSize.min', 1);
    integer(range.max, 'requires.subgroupSize.max', 1);
  }
  if (requires.subgroupMatrix !== undefined) {
    const shape = record(requires.subgroupMatrix, 'requires.subgroupMatrix');
    for (const name of ['m', 'n', 'k']) integer(shape[name], `requires.subgroupMatrix.${name}`, 1);
  }
}

function validateWeights(program: Program): void {
  list(program.weights, 'weights').forEach((weight, i) => {
    const at = `weights[${i}]`;
    text(record(weight, at).name, `${at}.name`);
    oneOf(weight.format, WEIGHT_FORMATS, `${at}.format`);
    oneOf(weight.layout, LAYOUTS, `${at}.layout`);
    list(weight.shape, `${at}.shape`).forEach((n) => {
      integer(n, `${at}.shape`, 1);
    });
    if (weight.shape.length !== 2) fail(`${at}.shape`, 'is not two numbers');
    for (const axis of ['rows', 'cols'] as const) {
      const range = weight[axis];
      if (range === undefined) continue;
      const [first, end] = list(range, `${at}.${axis}`);
      integer(first, `${at}.${axis}`, 0);
      integer(end, `${at}.${axis}`, (first as number) + 1);
    }
    if (weight.padIn !== undefined) integer(weight.padIn, `${at}.padIn`, 1);
    const [rows, cols] = weight.shape;
    if (cols % columnsUnit(weight.format) !== 0)
      fail(`${at}.shape`, `has ${cols} columns, which ${weight.format} cannot hold`);
    integer(weight.bytes, `${at}.bytes`, storedLayout(weight.format, rows, cols).bytes);
  });
}

function validateDispatch(
  program: Program,
  dispatch: Dispatch,
  at: string,
  bytesOf: Record<BufferKind, number[]>,
): void {
  text(record(dispatch, at).label, `${at}.label`);
  integer(dispatch.kernel, `${at}.kernel`, 0);
  const kernel = program.kernels[dispatch.kernel];
  if (!kernel) fail(`${at}.kernel`, `is ${dispatch.kernel} of ${program.kernels.length}`);
  number(dispatch.flops, `${at}.flops`);
  number(dispatch.bytes, `${at}.bytes`);
  const groups = list(dispatch.workgroups, `${at}.workgroups`);
  if (groups.length !== 3) fail(`${at}.workgroups`, 'is not three numbers');
  for (const n of groups) integer(n, `${at}.workgroups`, 1);
  const ranges = list(dispatch.bindings, `${at}.bindings`);
  if (ranges.length !== kernel.bindings.length) {
    fail(`${at}.bindings`, `has ${ranges.length} ranges for ${kernel.bindings.length} bindings of "${kernel.label}"`);
  }
  ranges.forEach((range, i) => {
    const where = `${at}.bindings[${i}]`;
    if (list(range, where).length !== 4) fail(where, 'is not [kind, index, offset, size]');
    const [kind, index, offset, size] = range as BufferRange;
    oneOf(kind, KINDS, where);
    integer(index, where, 0);
    const available = bytesOf[kind][index];
    if (available === undefined) fail(where, `names ${kind} ${index} of ${bytesOf[kind].length}`);
    integer(offset, where, 0);
    integer(size, where, 4);
    if (offset % 256 !== 0) fail(where, `has offset ${offset}, no multiple of 256`);
    if (size % 4 !== 0) fail(where, `has size ${size}, no multiple of 4`);
    if (offset + size > available) fail(where, `ends at byte ${offset + size} of a ${kind} of ${available}`);
  });
}

/** Allocated bytes of each buffer: rounded up to 16, as the device allocates them. */
function bufferSizes(program: Program): Record<BufferKind, number[]> {
  const padded = (bytes: number) => Math.max(16, Math.ceil(bytes / 16) * 16);
  return {
    port: program.ports.map((port) => padded(port.bytes)),
    slab: program.slabs.map(padded),
    weight: program.weights.map((weight) => padded(weight.bytes)),
    constant: program.constants.map((constant) => padded(constant.bytes)),
  };
}

export function fail(path: string, problem: string): never {
  throw new KontextError('program-invalid', `The program is broken: ${path} ${problem}. Compile it again.`, { path });
}

export function record(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) fail(path, 'is no object');
  return value as Record<string, unknown>;
}

export function list<T>(value: T, path: string): T extends readonly unknown[] ? T : unknown[] {
  if (!Array.isArray(value)) fail(path, 'is no list');
  return value as never;
}

export function text(value: unknown, path: string): void {
  if (typeof value !== 'string') fail(path, 'is no text');
}

export function number(value: unknown, path: string): void {
  if (typeof value !== 'number' || !(value >= 0)) fail(path, 'is no number from 0 up');
}

export function integer(value: unknown, path: string, least: number): void {
  if (!Number.isSafeInteger(value) || (value as number) < least)
    fail(path, `is ${shown(value)}, not an integer from ${least} up`);
}

export function oneOf(value: unknown, allowed: readonly string[], path: string): void {
  if (!allowed.includes(value as string)) fail(path, `is ${shown(value)}, not one of ${allowed.join(', ')}`);
}
