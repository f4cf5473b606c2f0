// `--from IMAGE`: the settings of a picture made before, under what the command line says itself.
import { readSettings } from '../image/node.ts';
import { REQUEST_OPTIONS, type RequestOption } from '../kontext/options.ts';
import { checkRequest } from '../kontext/request.ts';
import type { EditRequest } from '../kontext/types.ts';

/** Options that exclude those beside them: what is given takes the place of all. */
const TOGETHER: readonly (readonly string[])[] = [
  ['sigmas', 'schedule', 'steps'],
  ['size', 'maxArea'],
  ['sampler', 'eta'],
];

/**
 * @param given what the flags say; it wins
 * @param tell called with a line for each setting that is not used
 * @throws KontextError `image-invalid` as {@link readSettings}
 */
export async function withSettingsOf(
  picture: string,
  kind: 'edit' | 'generate',
  given: Record<string, unknown>,
  signal: AbortSignal,
  tell: (line: string) => void,
): Promise<Record<string, unknown>> {
  const { options, unused } = await readSettings(picture, signal);
  const taken: Record<string, unknown> = {};
  const left = unused.map(({ name, reason }) => `${name} (${reason})`);
  for (const [name, value] of Object.entries(options)) {
    if (TOGETHER.some((group) => group.includes(name) && group.some((one) => one in given))) continue;
    const only = name === 'prompt' ? undefined : (REQUEST_OPTIONS[name as 'steps'] as RequestOption).only;
    if (only !== undefined && only !== kind) left.push(`${name} (it belongs to ${only})`);
    else taken[name] = value;
  }
  if (left.length > 0) tell(`Not taken from ${picture}: ${left.join(', ')}.`);
  const all = { ...taken, ...given };
  // What the picture says is wrong in it, not on the command line.
  if (typeof all.prompt === 'string')
    checkRequest((kind === 'edit' ? { ...all, image: picture } : all) as unknown as EditRequest);
  return all;
}
