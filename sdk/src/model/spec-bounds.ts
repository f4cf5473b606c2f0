// Ranges of every number that describes a network, whether a config said it or a bundle's manifest.
// Specs steer loops, allocations and divisions; none of these may be reached by a number that no network has.
import type { BundleSpecs } from '../../../kernels-codegen/src/bundle/types.ts';
import { KontextError } from '../../../runtime/src/errors.ts';

type Rule = (value: unknown) => string | undefined;

/** @returns a rule: undefined when the value is right, else what it must be */
const whole =
  (min: number, max: number): Rule =>
  (value) =>
    Number.isInteger(value) && (value as number) >= min && (value as number) <= max
      ? undefined
      : `a whole number from ${min} to ${max}`;

const real =
  (min: number, max: number): Rule =>
  (value) =>
    typeof value === 'number' && value >= min && value <= max ? undefined : `a number from ${min} to ${max}`;

const listOf =
  (rule: Rule, longest: number): Rule =>
  (value) => {
    if (!Array.isArray(value) || value.length < 1 || value.length > longest) return `a list of 1 to ${longest} numbers`;
    return value.map(rule).find((problem) => problem !== undefined);
  };

const flag: Rule = (value) => (typeof value === 'boolean' ? undefined : 'true or false');
const oneOf =
  (...names: string[]): Rule =>
  (value) =>
    names.includes(value as string) ? undefined : `one of ${names.join(', ')}`;

const width = whole(1, 2 ** 17);
const depth = whole(1, 1000);
const vocabulary = whole(1, 2 ** 22);

/** By network and field. Bounds are far beyond any network of the kind, and far below what hurts. */
const RULES: { [Part in keyof BundleSpecs]: { [Field in keyof Required<BundleSpecs[Part]>]: Rule } } = {
  transformer: {
    inChannels: whole(1, 4096),
    outChannels: whole(1, 4096),
    hidden: width,
    heads: whole(1, 1024),
    doubleBlocks: depth,
    singleBlocks: depth,
    mlpRatio: real(1 / 64, 64),
    textWidth: width,
    pooledWidth: width,
    axes: listOf(whole(2, 4096), 8),
    theta: real(1, 1e9),
    guidance: flag,
    qkvBias: flag,
  },
  t5: {
    vocabulary,
    width,
    headSize: whole(1, 4096),
    heads: whole(1, 1024),
    mlpWidth: width,
    layers: depth,
    buckets: whole(4, 4096),
    maxDistance: whole(4, 2 ** 20),
    eps: real(0, 1),
  },
  clip: {
    vocabulary,
    width,
    heads: whole(1, 1024),
    mlpWidth: width,
    layers: depth,
    positions: whole(1, 2 ** 16),
    eps: real(0, 1),
    activation: oneOf('quick_gelu', 'gelu_tanh'),
  },
  vae: {
    channels: listOf(whole(1, 2 ** 16), 8),
    blocks: whole(1, 64),
    latentChannels: whole(1, 4096),
    groups: whole(1, 2 ** 16),
    scale: real(1e-6, 1e6),
    shift: real(-1e6, 1e6),
  },
};

/**
 * @param specs from a config or a manifest: any value at all
 * @param label what the error names
 * @throws KontextError with `code` naming network, field and range
 */
export function checkSpecBounds(
  specs: unknown,
  label: string,
  code: 'weights-invalid' | 'program-invalid',
): asserts specs is BundleSpecs {
  const given = (specs ?? {}) as Record<string, Record<string, unknown> | undefined>;
  const refuse = (where: string, must: string, value?: unknown) =>
    new KontextError(code, `${label}: ${where} is ${show(value)}; it must be ${must}.`, { field: where });
  for (const [part, rules] of Object.entries(RULES)) {
    const spec = given[part];
    if (typeof spec !== 'object' || spec === null) throw refuse(part, 'a description of the network', spec);
    for (const [field, rule] of Object.entries(rules)) {
      const must = rule(spec[field]);
      if (must !== undefined) throw refuse(`${part} ${field}`, must, spec[field]);
    }
  }
  const { transformer, t5, clip, vae } = specs as BundleSpecs;
  const { hidden, heads, axes, mlpRatio } = transformer;
  const together: [fits: boolean, where: string, must: string, value: unknown][] = [
    [hidden % heads === 0, 'transformer heads', `a divisor of the width ${hidden}`, heads],
    [
      axes.reduce((sum, axis) => sum + axis, 0) === hidden / heads && axes.every((axis) => axis % 2 === 0),
      'transformer axes',
      `even numbers that add up to the head size ${hidden / heads}`,
      axes,
    ],
    [Number.isInteger(hidden * mlpRatio), 'transformer mlpRatio', `such that ${hidden} times it is whole`, mlpRatio],
    [clip.width % clip.heads === 0, 'clip heads', `a divisor of the width ${clip.width}`, clip.heads],
    [t5.buckets % 4 === 0, 't5 buckets', 'a multiple of 4', t5.buckets],
    [t5.maxDistance > t5.buckets / 4, 't5 maxDistance', `more than ${t5.buckets / 4}`, t5.maxDistance],
    [
      vae.channels.every((channels) => channels % vae.groups === 0),
      'vae groups',
      `a divisor of the channels ${vae.channels.join(', ')}`,
      vae.groups,
    ],
  ];
  const broken = together.find(([fits]) => !fits);
  if (broken) throw refuse(broken[1], broken[2], broken[3]);
}

function show(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (Array.isArray(value) && value.every((item) => typeof item === 'number'))
    return `[${value.slice(0, 8).join(', ')}]`;
  return value === undefined ? 'missing' : typeof value === 'string' ? 'a text' : 'no number';
}
