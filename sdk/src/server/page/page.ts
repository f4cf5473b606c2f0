// The built-in page at `/`: the editor element, talking to the server that it came from.
// Its files are the package's own build for pages; nothing is loaded from elsewhere, and the policy says so.

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

/** Scripts and styles from this server only, pictures also as blobs; no frames, no plugins, no forms elsewhere. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "img-src 'self' blob: data:",
  "connect-src 'self' blob:",
  "worker-src 'self' blob:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
};

/** Answers for `/` and `/assets/…`; undefined for other paths, and everywhere when the package was built without pages. */
export function pageFiles(): (path: string) => Promise<Response | undefined> {
  const folder = browserBuild();
  return async (path) => {
    if (!folder) return undefined;
    if (path === '/') return text(PAGE, 'text/html; charset=utf-8', 'no-cache');
    if (path === '/assets/page.js') return text(SCRIPT, JAVASCRIPT, 'no-cache');
    if (path === '/assets/page.css') return text(STYLE, 'text/css; charset=utf-8', 'no-cache');
    const [, name] = /^\/assets\/([\w.-]+\.js)$/.exec(path) ?? [];
    if (name === undefined) return undefined;
    const file = await readFile(new URL(name, folder), 'utf8').catch(() => undefined);
    return file === undefined ? undefined : text(file, JAVASCRIPT, 'public, max-age=3600');
  };
}

const JAVASCRIPT = 'text/javascript; charset=utf-8';

function text(body: string, type: string, caching: string): Response {
  return new Response(body, { headers: { ...HEADERS, 'content-type': type, 'cache-control': caching } });
}

/** `dist/browser/`, seen from the sources and from dist. */
function browserBuild(): URL | undefined {
  for (let folder = new URL('.', import.meta.url); ; folder = new URL('..', folder)) {
    for (const place of ['browser/', 'dist/browser/']) {
      const candidate = new URL(place, folder);
      if (existsSync(new URL('remote.js', candidate))) return candidate;
    }
    if (folder.pathname === '/') return undefined;
  }
}

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>kontext</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/page.css">
<script type="module" src="/assets/page.js"></script>
<form id="key" hidden>
  <label>API key <input type="password" name="key" autocomplete="current-password" required></label>
  <button>Use it</button>
</form>
</html>
`;

const STYLE = `html, body { height: 100%; margin: 0; background: Canvas; color: CanvasText; font: 16px/1.4 system-ui, sans-serif; }
body { display: grid; grid-template-rows: minmax(0, 1fr) auto; }
#key { padding: 0.75rem 1rem; }
#key input { font: inherit; padding: 0.4rem; }
#key button { font: inherit; padding: 0.4rem 0.8rem; }
`;

/** A key is asked for where the server wants one, and kept for the tab only. */
const SCRIPT = `import { connect } from '/assets/remote.js';
import '/assets/element.js';
const editor = document.createElement('kontext-editor');
const form = document.querySelector('#key');
const use = (apiKey) => { editor.engine = connect('/', apiKey ? { apiKey } : {}); };
const kept = sessionStorage.getItem('kontext-key');
const { status } = await fetch('/v1/models', { headers: kept ? { authorization: 'Bearer ' + kept } : {} });
form.hidden = status !== 401;
// With an engine from the start, the editor does not look for a GPU in this browser.
use(kept);
document.body.prepend(editor);
form.addEventListener('submit', (event) => {
  event.preventDefault();
  const key = new FormData(form).get('key');
  sessionStorage.setItem('kontext-key', key);
  use(key);
  form.hidden = true;
});
`;
