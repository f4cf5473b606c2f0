// The text that Stable Diffusion's web interfaces keep in pictures and that galleries show: the prompt, what to avoid, and one line
// of settings. Written so that they read it, and read as they write it; names of samplers and schedules as people know them.
import type { SamplerName, ScheduleName } from '../../kontext/options.ts';
import type { Found, MadeWith, Unused } from './types.ts';

/** Keyword of the text in PNG files. */
export const PARAMETERS = 'parameters';
/** Beyond it a text is no list of settings; nothing of it is read. */
const MAX_TEXT = 2 ** 20;

/** Ours are ComfyUI's names; these are the web interfaces'. */
const SAMPLERS: Record<SamplerName, string> = {
  euler: 'Euler',
  heun: 'Heun',
  dpmpp_2m: 'DPM++ 2M',
  res_multistep: 'Res Multistep',
  ipndm: 'IPNDM',
  deis: 'DEIS',
  euler_ancestral: 'Euler a',
};
/** `model` has none: it is what an interface takes by itself. */
const SCHEDULES: Record<Exclude<ScheduleName, 'model'>, string> = {
  simple: 'Simple',
  sgm_uniform: 'SGM Uniform',
  normal: 'Normal',
  beta: 'Beta',
  linear_quadratic: 'Linear Quadratic',
  kl_optimal: 'KL Optimal',
};

/** @param size of the picture, which with a mask is not the size that was denoised */
export function writeParameters(made: MadeWith, size: { width: number; height: number }): string {
  const { sampler = 'euler', schedule = 'model', strength } = made;
  const fields: Record<string, string | number | bigint | undefined> = {
    Steps: made.steps,
    Sampler: SAMPLERS[sampler],
    'Schedule type': schedule === 'model' ? undefined : SCHEDULES[schedule],
    'CFG scale': made.trueCfgScale,
    'Distilled CFG Scale': made.guidance,
    Seed: made.seed,
    Size: `${size.width}x${size.height}`,
    Model: made.model,
    'Denoising strength': strength,
    Eta: made.eta,
    Version: 'kontext-webgpu',
  };
  const line = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${quoted(String(value))}`)
    .join(', ');
  const negative = made.negativePrompt === undefined ? [] : [`Negative prompt: ${made.negativePrompt}`];
  return [made.prompt, ...negative, line].join('\n');
}

/** Options by our names; what has none here, or a value that is not known, is told. Undefined when `text` has no line of settings. */
export function readParameters(text: string): Found | undefined {
  if (text.length > MAX_TEXT) return undefined;
  const lines = text.split(/\r?\n/);
  const at = lines.findLastIndex((line) => /^\s*Steps: \d/.test(line));
  if (at < 0) return undefined;
  const fields = fieldsOf(lines.slice(at).join('\n'));
  const words = lines.slice(0, at);
  const negative = words.findIndex((line) => line.startsWith('Negative prompt:'));
  const prompt = words.slice(0, negative < 0 ? undefined : negative).join('\n');
  const avoided = negative < 0 ? '' : words.slice(negative).join('\n').slice('Negative prompt:'.length).trim();
  const options: Record<string, unknown> = { ...(prompt.trim() !== '' && { prompt: prompt.trim() }) };
  const unused: Unused[] = [];
  for (const [name, value] of fields) {
    const known = FIELDS[name];
    if (!known) unused.push({ name, reason: 'it has no counterpart here' });
    else Object.assign(options, known(value));
  }
  const cfg = Number(options.trueCfgScale);
  if (avoided !== '' && cfg > 1) options.negativePrompt = avoided;
  else {
    // Without a negative prompt the scale does nothing here, and at 1 the negative prompt nothing anywhere.
    delete options.trueCfgScale;
    if (avoided !== '') unused.push({ name: 'Negative prompt', reason: 'at CFG scale 1 it has no effect' });
    else if (cfg > 1) unused.push({ name: 'CFG scale', reason: 'it has no effect without a negative prompt' });
  }
  if (options.sampler !== 'euler_ancestral') delete options.eta;
  for (const name of ['sampler', 'schedule'] as const) {
    if (options[name] !== null) continue;
    delete options[name];
    const field = name === 'sampler' ? 'Sampler' : 'Schedule type';
    unused.push({ name: field, reason: `there is no ${name} of that name here` });
  }
  return { options, unused };
}

/** Each field of the line: what it means here. A name that is not known here is null. */
const FIELDS: Record<string, (value: string) => Record<string, unknown>> = {
  Steps: (value) => ({ steps: Number(value) }),
  Seed: (value) => ({ seed: /^\d{1,20}$/.test(value) ? BigInt(value) : Number(value) }),
  Size: (value) => ({ size: value }),
  'CFG scale': (value) => ({ trueCfgScale: Number(value) }),
  'Distilled CFG Scale': (value) => ({ guidance: Number(value) }),
  'Denoising strength': (value) => ({ strength: Number(value) }),
  Eta: (value) => ({ eta: Number(value) }),
  'Schedule type': (value) => (/^automatic$/i.test(value) ? {} : { schedule: scheduleOf(value) }),
  Sampler: samplerOf,
  // What made it, not how.
  Model: () => ({}),
  'Model hash': () => ({}),
  Version: () => ({}),
};

const plain = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]/g, '');
const byName = <T extends string>(names: Record<T, string>): ReadonlyMap<string, T> =>
  new Map(
    (Object.entries(names) as [T, string][]).flatMap(([ours, theirs]) => [ours, theirs].map((n) => [plain(n), ours])),
  );
const samplersByName = byName(SAMPLERS);
const schedulesByName = byName(SCHEDULES);

const scheduleOf = (name: string): ScheduleName | null => schedulesByName.get(plain(name)) ?? null;

/** Older versions write the schedule behind the sampler: `Euler Simple`, `dpmpp_2m_sgm_uniform`. */
function samplerOf(value: string): Record<string, unknown> {
  const name = plain(value);
  const whole = samplersByName.get(name);
  if (whole) return { sampler: whole };
  for (const [schedule, ours] of schedulesByName) {
    const sampler = name.endsWith(schedule) && samplersByName.get(name.slice(0, -schedule.length));
    if (sampler) return { sampler, schedule: ours };
  }
  return { sampler: null };
}

/** `Name: value, Name: "value, quoted"`, up to where it is no such list any more. */
function fieldsOf(line: string): [string, string][] {
  const fields: [string, string][] = [];
  const field = /\s*(\w[\w /-]{0,63}): ?("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)/y;
  for (let found = field.exec(line); found && found[0] !== ''; found = field.exec(line)) {
    fields.push([found[1]!, unquoted(found[2]!.trim())]);
    if (field.lastIndex >= line.length) break;
  }
  return fields;
}

const quoted = (value: string): string => (/[,:\n"]/.test(value) ? JSON.stringify(value) : value);

function unquoted(value: string): string {
  if (!value.startsWith('"')) return value;
  try {
    return String(JSON.parse(value));
  } catch {
    return value;
  }
}
