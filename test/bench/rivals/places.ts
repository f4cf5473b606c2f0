// Where contenders run: Node with Dawn on the system's Vulkan adapter, and Chromium on its software adapter.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { launch, openPage } from '../../browser/support/chromium.ts';
import { serve } from '../../browser/support/server.ts';
import type { ContenderName } from './contender.ts';
import type { Answer, Command } from './in-node.ts';
import type { WorkName } from './works.ts';

/** A contender that was loaded. Every call rejects when it fails or ends. */
export interface Started {
  prepare(work: WorkName): Promise<{ ms: number; result: Float32Array }>;
  again(): Promise<number>;
  close(): Promise<void>;
}

export interface Place {
  title: string;
  contenders: ContenderName[];
  start(name: ContenderName): Promise<Started>;
  close(): Promise<void>;
}

/** Beside the rivals' packages, so that what is not bundled is found from there. */
const BUNDLES = 'test/bench/rivals/node_modules/.bundles/';
const root = fileURLToPath(new URL('../../..', import.meta.url));
const RIVALS = ['TensorFlow.js WebGPU', 'jax-js WebGPU', 'ONNX Runtime Web WebGPU', 'ONNX Runtime Web WASM'] as const;

/** The entry of a process or a page with everything it may load, in one folder. */
async function bundle(entry: 'in-node' | 'in-page'): Promise<string> {
  const inNode = entry === 'in-node';
  await build({
    entryPoints: [fileURLToPath(new URL(`./${entry}.ts`, import.meta.url))],
    outdir: `${root}${BUNDLES}${entry}`,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: inNode ? 'node' : 'browser',
    // TensorFlow.js offers Node a bundle of its own, which shares nothing between its packages.
    mainFields: ['module', 'main'],
    target: 'es2022',
    external: ['webgpu', ...(inNode ? [] : ['node:*'])],
    outExtension: { '.js': '.mjs' },
    ...(inNode && {
      banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
    }),
    logLevel: 'error',
  });
  return `${BUNDLES}${entry}/${entry}.mjs`;
}

export async function node(): Promise<Place> {
  const script = await bundle('in-node');
  return {
    title: 'Node, Dawn on the adapter of the system',
    contenders: ['ours', 'ours, f32', ...RIVALS, 'ONNX Runtime native, 1 thread', 'ONNX Runtime native, 2 threads'],
    start: (name) => startProcess(script, name),
    async close() {},
  };
}

async function startProcess(script: string, name: ContenderName): Promise<Started> {
  const child = fork(`${root}${script}`, {
    execArgv: [],
    serialization: 'advanced',
    // What rivals print on the way is theirs.
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  const ask = (command: Command): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const ended = (code: number | null, signal: string | null) => reject(new Error(`ended by ${signal ?? code}`));
      if (!child.connected) return ended(child.exitCode, child.signalCode);
      child.once('exit', ended);
      child.once('message', (answer: Answer) => {
        child.off('exit', ended);
        if ('error' in answer) reject(new Error(answer.error));
        else resolve(answer);
      });
      child.send(command);
    });
  const close = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  };
  try {
    await ask({ load: name });
  } catch (error) {
    await close();
    throw error;
  }
  return {
    prepare: async (work) => (await ask({ prepare: work })) as { ms: number; result: Float32Array },
    again: async () => ((await ask('again')) as { ms: number }).ms,
    close,
  };
}

type PageScript = typeof import('./in-page.ts');

declare global {
  var inPage: PageScript;
}

export async function chromium(): Promise<Place> {
  const script = await bundle('in-page');
  const server = await serve(root);
  const browser = await launch();
  const start = async (name: ContenderName): Promise<Started> => {
    const { page } = await openPage(browser, `${server.url}/blank.html`);
    await page.evaluate(
      async ({ script, packages, name }) => {
        globalThis.onnxRuntimeFolder = `${location.origin}${packages}`;
        globalThis.inPage = (await importModule(script)) as PageScript;
        await inPage.load(name);
      },
      { script: `/${script}`, packages: '/test/bench/rivals/node_modules/onnxruntime-web/dist/', name },
    );
    return {
      async prepare(work) {
        const { ms, result } = await page.evaluate((work) => inPage.prepare(work), work);
        return { ms, result: new Float32Array(Uint8Array.from(Buffer.from(result, 'base64')).buffer) };
      },
      again: () => page.evaluate(() => inPage.again()),
      close: () => page.context().close(),
    };
  };
  return {
    title: 'Chromium on SwiftShader',
    contenders: ['ours', ...RIVALS],
    start,
    async close() {
      await browser.close();
      await server.close();
    },
  };
}
