// Every TypeScript snippet of the guides for the web and for models compiles against the sources: a guide that lies fails here.
// One program for all, because most of the time goes into the platform's own types.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

it('type-checks the snippets of docs/guide/web.md and models.md', { timeout: 180_000 }, () => {
  const guide = ['web', 'models'].map((name) => readFileSync(`${root}/docs/guide/${name}.md`, 'utf8')).join('\n');
  const snippets = new Map(
    [...guide.matchAll(/```ts\n(.*?)```/gs)].map(([, code], i) => [`${root}test/package/snippet-${i}.ts`, code!]),
  );
  expect(snippets.size).toBeGreaterThan(5);
  const { config } = ts.readConfigFile(`${root}/tsconfig.json`, ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  options.paths = {
    'kontext-webgpu': [`${root}/sdk/src/node.ts`],
    'npm:kontext-webgpu': [`${root}/sdk/src/node.ts`],
    'kontext-webgpu/browser': [`${root}/sdk/src/browser.ts`],
    'kontext-webgpu/worker': [`${root}/sdk/src/worker/client.ts`],
    'kontext-webgpu/strings/de': [`${root}/sdk/src/element/strings-de.ts`],
    'kontext-webgpu/element': [`${root}/sdk/src/element/element.ts`],
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile } = host;
  host.fileExists = (name) => snippets.has(name) || fileExists(name);
  host.readFile = (name) => snippets.get(name) ?? readFile(name);
  const { getSourceFile } = host;
  host.getSourceFile = (name, version, ...rest) => {
    const snippet = snippets.get(name);
    return snippet === undefined ? getSourceFile(name, version, ...rest) : ts.createSourceFile(name, snippet, version);
  };
  const program = ts.createProgram([...snippets.keys()], options, host);
  const problems = [...snippets.keys()].flatMap((name) => {
    const file = program.getSourceFile(name)!;
    return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)];
  });
  expect(problems.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))).toEqual([]);
});
