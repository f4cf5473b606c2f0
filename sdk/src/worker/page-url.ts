// Makes URLs absolute where the caller wrote them.
// A worker would resolve the same string against its own script, which lies elsewhere.

/** `url` from the page's base, or in a worker from its script. */
export function pageUrl(url: string | URL): URL {
  return new URL(url, typeof document === 'object' ? document.baseURI : location.href);
}
