// A Next.js app with the packed package: built, started, its page fetched and opened in a browser, its route run in Node.
// Next.js and React are installed from the registry for this test alone.
import { execFileSync, spawn } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type * as InWorker from '../../sdk/src/worker/client.ts';
import { launch, openPage } from '../browser/support/chromium.ts';
import { install, pack, root } from './project.ts';

let packed: ReturnType<typeof pack>;
let project: string;
let url: string;
let stop = () => {};

const next = () => join(project, 'node_modules/next/dist/bin/next');
const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1', NODE_ENV: 'production' as const };

beforeAll(async () => {
  packed = pack();
  project = install(packed, 'next', 'next');
  const wanted = [
    'next@16',
    'react@19',
    'react-dom@19',
    '@types/react@19',
    '@types/react-dom@19',
    '@types/node@20',
    'typescript@5',
  ];
  execFileSync('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error', ...wanted], {
    cwd: project,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  // Dawn, as an app would install it: linked here, because it is large.
  cpSync(join(root, 'node_modules/webgpu'), join(project, 'node_modules/webgpu'), { recursive: true });
  cpSync(join(root, 'examples/demo-model/model'), join(project, 'public/model'), { recursive: true });
  try {
    execFileSync(process.execPath, [next(), 'build'], { cwd: project, env, encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`next build failed:\n${stdout}\n${stderr}`);
  }
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const server = spawn(process.execPath, [next(), 'start', '-p', String(port), '-H', '127.0.0.1'], {
    cwd: project,
    env,
  });
  stop = () => void server.kill();
  await new Promise<void>((resolve, reject) => {
    server.stdout.on('data', (text) => /Ready/.test(String(text)) && resolve());
    server.once('exit', (code) => reject(new Error(`next start ended with ${code}`)));
  });
});
afterAll(() => {
  stop();
  rmSync(packed.folder, { recursive: true });
});

it('renders the element on the server, without a window', async () => {
  const html = await (await fetch(`${url}/server`)).text();
  expect(html).toMatch(/<kontext-editor[^>]* model="\/model\/"/);
});

it('runs the Node entry in a route', async () => {
  const answer = (await (await fetch(`${url}/api/edit`)).json()) as Record<string, string>;
  // Where there is no driver the engine says so, with its own code; a bundled or missing Dawn would be another error.
  expect(answer.code ?? 'webgpu-unavailable').toBe('webgpu-unavailable');
  expect(answer.code === undefined ? answer.architecture !== undefined : true).toBe(true);
});

it('has a page with the element at work and the engine in a worker', async () => {
  const browser = await launch();
  try {
    const { page, problems } = await openPage(browser, url);
    await page.waitForFunction(() => 'app' in globalThis);
    const seen = await page.evaluate(async () => {
      const editor = document.querySelector('kontext-editor')!;
      await editor.open(new ImageData(8, 4));
      const { Kontext } = (globalThis as unknown as { app: typeof InWorker }).app;
      const kontext = await Kontext.load('/model/');
      const { architecture } = kontext.adapter!;
      await kontext.close();
      const text = editor.shadowRoot!.querySelector('.edit')!.textContent;
      return { architecture, text, opened: (globalThis as unknown as { opened: number }).opened };
    });
    expect(seen).toEqual({ architecture: 'swiftshader', text: 'Go', opened: 8 });
    expect(problems).toEqual([]);
  } finally {
    await browser.close();
  }
});

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
