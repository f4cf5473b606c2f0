// Tells a page of HTML from a model's file: many servers answer 200 with their start page for what they do not have.

/** Enough for comments and white space before the first tag. */
export const PAGE_BYTES = 512;

/**
 * @param start the first bytes, up to {@link PAGE_BYTES}
 * @param contentType of the answer; one of HTML makes a first `<` enough
 */
export function isWebPage(start: Uint8Array, contentType: string | null): boolean {
  const text = new TextDecoder('latin1')
    .decode(start.subarray(0, PAGE_BYTES))
    .replace(/^\xef\xbb\xbf/, '')
    .trimStart();
  if (/^<(!doctype\s+html|html|head|body|!--)/i.test(text)) return true;
  return text.startsWith('<') && isHtmlType(contentType);
}

/** Of the type that fallback pages have. */
export function isHtmlType(contentType: string | null): boolean {
  return /^\s*(text\/html|application\/xhtml\+xml)/i.test(contentType ?? '');
}
