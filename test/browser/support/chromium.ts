// Starts the Chromium of the system, without a window, with WebGPU on its software adapter.
// The adapter has no f16 and computes a few GFLOP/s, so tests keep to 64×64 and few steps.
import { existsSync } from 'node:fs';
import { type Browser, chromium, type Page } from 'playwright-core';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** Path of a Chromium, or undefined. `CHROMIUM` in the environment wins. */
export function findChromium(): string | undefined {
  return [process.env.CHROMIUM ?? '', ...PLACES].find((path) => path !== '' && existsSync(path));
}

export async function launch(): Promise<Browser> {
  const executablePath = findChromium();
  if (!executablePath) throw new Error('no Chromium: run `apt-get install chromium`, or set CHROMIUM to its path');
  return chromium.launch({
    executablePath,
    args: [
      '--headless',
      '--no-sandbox',
      '--enable-unsafe-webgpu',
      '--use-webgpu-adapter=swiftshader',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/**
 * For code that runs in the page: the test runner rewrites `import()`, this it leaves alone.
 *
 * @param script path from the server's root
 */
declare global {
  function importModule(script: string): Promise<unknown>;
}

/** A page whose errors end up in `problems`, which tests expect to stay empty. */
export async function openPage(browser: Browser, url: string): Promise<{ page: Page; problems: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1000, height: 900 } });
  await context.addInitScript('globalThis.importModule = (script) => import(script)');
  const page = await context.newPage();
  const problems: string[] = [];
  page.on('pageerror', (error) => problems.push(String(error)));
  page.on('console', (message) => {
    // A model's optional files are asked for and may be missing; the browser reports each 404.
    const missing = message.text().includes('404');
    if (message.type() === 'error' && !missing) problems.push(`${message.text()} ${message.location().url}`);
  });
  await page.goto(url);
  return { page, problems };
}
