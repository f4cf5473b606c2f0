// Which release of a file an answer is of, so that bytes of two are never put together.

/** What a server tells of a file's release. */
export interface FileVersion {
  size: number;
  /** As sent, with `W/` when weak. */
  etag: string | null;
  lastModified: string | null;
}

export function versionOf(response: Response, size: number): FileVersion {
  const { headers } = response;
  return { size, etag: headers.get('etag'), lastModified: headers.get('last-modified') };
}

/**
 * Whether two answers may be of one release. A strong ETag decides alone (servers behind a balancer may differ in dates);
 * otherwise size, date and weak ETag must agree where both have them.
 */
export function sameVersion(a: FileVersion, b: FileVersion): boolean {
  if (a.size !== b.size) return false;
  const differs = (x: string | null, y: string | null) => x !== null && y !== null && x !== y;
  if (differs(a.etag, b.etag)) return false;
  if (isStrong(a.etag) && a.etag === b.etag) return true;
  return !differs(a.lastModified, b.lastModified);
}

/** For `If-Range`: a strong ETag, else the date; undefined when the server tells neither. */
export function rangeCondition({ etag, lastModified }: FileVersion): string | undefined {
  return (isStrong(etag) ? etag : lastModified) ?? undefined;
}

/** Short text that two releases do not share, for names of kept pieces; a server without validators leaves only the size. */
export function versionKey(version: FileVersion): string {
  const { size, etag, lastModified } = version;
  return JSON.stringify(isStrong(etag) ? [size, etag] : [size, etag, lastModified]);
}

function isStrong(etag: string | null): etag is string {
  return etag !== null && !etag.startsWith('W/');
}
