// From what an app calls its model to where its bytes are: addresses on the hub, and bounds on the hosts that may be asked.
import type { AccessPolicy } from '../../../runtime/src/net/access.ts';
import { urlBytes } from '../../../runtime/src/weights/url.ts';
import { isHubAddress } from '../hub/address.ts';
import type { HubLoad } from '../hub/download.ts';
import { type FileInput, localPath } from './files.ts';
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
  const entries = await Promise.all(
    Object.entries(source).map(async ([name, input]) => [name, await resolveFile(input as FileInput, options)]),
  );
  return Object.fromEntries(entries) as typeof source;
}

/** One file; what is no hub address and no bounded URL stays as it is. */
export async function resolveFile(input: FileInput, options: PlaceOptions): Promise<FileInput> {
  if (isHubAddress(input)) {
    const { openHubFile } = await import('../hub/file.ts');
    return openHubFile(input, withAccess(options));
  }
  const { access, signal } = options;
  const isUrl = typeof input === 'string' || input instanceof URL;
  return access && isUrl && localPath(input) === undefined ? urlBytes(input, { access, signal }) : input;
}

function withAccess({ access, ...load }: PlaceOptions): HubLoad {
  return access ? { ...load, request: { ...load.request, access } } : load;
}
