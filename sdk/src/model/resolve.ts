// From what an app calls its model to where its bytes are: addresses on the hub, and bounds on the hosts that may be asked.
import type { AccessPolicy } from '../../../runtime/src/net/access.ts';
import type { ByteSource } from '../../../runtime/src/weights/byte-source.ts';
import { urlBytes } from '../../../runtime/src/weights/url.ts';
import { isHubAddress } from '../hub/address.ts';
import type { HubLoad } from '../hub/download.ts';
import { type FileInput, localPath, type PlacedFile, urlFiles } from './files.ts';
import { type ModelSource, urlPlace } from './open.ts';

/** How a model's place may be reached. */
export interface PlaceOptions extends HubLoad {
  access?: AccessPolicy;
}

/** The source with everything opened that is on the hub; `source` itself where nothing is to be done. */
export async function resolveSource(source: ModelSource, options: PlaceOptions): Promise<ModelSource> {
  if (isHubAddress(source)) {
    const { openHub } = await import('../hub/open.ts');
    return openHub(source, withAccess(options));
  }
  if (typeof source === 'string' || source instanceof URL) {
    return options.access && localPath(source) === undefined ? urlPlace(source, { access: options.access }) : source;
  }
  // What is no source at all is told by who opens it.
  if (typeof source !== 'object' || source === null || !('transformer' in source)) return source;
  const entries = Object.entries(source) as [string, FileInput][];
  // All of them are waited for: what one has opened is given back when another fails.
  const settled = await Promise.allSettled(entries.map(([, input]) => resolveFile(input, options)));
  const failed = settled.find((one) => one.status === 'rejected');
  if (failed) {
    for (const [i, one] of settled.entries()) {
      if (one.status === 'fulfilled' && one.value !== entries[i]![1]) await (one.value as ByteSource).close();
    }
    throw failed.reason;
  }
  return Object.fromEntries(
    entries.map(([name], i) => [name, (settled[i] as PromiseFulfilledResult<FileInput>).value]),
  ) as unknown as typeof source;
}

/** One file; what is no hub address and no bounded URL stays as it is. */
export async function resolveFile(input: FileInput, options: PlaceOptions): Promise<FileInput> {
  if (isHubAddress(input)) {
    const { openHubFile } = await import('../hub/file.ts');
    return openHubFile(input, withAccess(options));
  }
  const { access, signal } = options;
  const isUrl = typeof input === 'string' || input instanceof URL;
  if (!access || !isUrl || localPath(input) !== undefined) return input;
  // The other parts of a split file are asked for under the same bounds.
  const bytes = await urlBytes(input, { access, signal });
  if (!/^https?:/i.test(String(input))) return bytes;
  const folder = urlFiles(new URL('.', input), { access });
  const placed: PlacedFile = { ...bytes, listed: false, beside: (name) => folder.open(name, signal) };
  return placed;
}

function withAccess({ access, ...load }: PlaceOptions): HubLoad {
  return access ? { ...load, request: { ...load.request, access } } : load;
}
