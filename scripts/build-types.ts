// Finishes the declarations in dist so that they stand alone: without the DOM library, @types/node or a newer `lib` than ES2022.
// Run after tsup. Names of the platform come from sdk/types/platform.d.ts, and optional properties take `undefined` outright, for apps with
// exactOptionalPropertyTypes.
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const root = fileURLToPath(new URL('..', import.meta.url));
const platform = readFileSync(`${root}sdk/types/platform.d.ts`, 'utf8');
const NAMES = new Set([...platform.matchAll(/^export type (\w+)/gm)].map(([, name]) => name!));

for (const file of readdirSync(`${root}dist`)) {
  if (!file.endsWith('.d.ts') || file === 'platform.d.ts' || file === 'react.d.ts') continue;
  const path = `${root}dist/${file}`;
  writeFileSync(path, standAlone(readFileSync(path, 'utf8'), file === 'element.d.ts'));
}
for (const file of ['platform.d.ts', 'react.d.ts']) copyFileSync(`${root}sdk/types/${file}`, `${root}dist/${file}`);

interface Edit {
  at: number;
  end: number;
  text: string;
}

/** @param page the module is for pages alone, and extends classes of the DOM */
export function standAlone(declarations: string, page: boolean): string {
  const source = ts.createSourceFile('module.d.ts', declarations, ts.ScriptTarget.ES2022, true);
  const used = new Set<string>();
  const edits: Edit[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isTypeReferenceNode(node)) {
      const name = node.typeName.getText();
      if (NAMES.has(name)) used.add(name);
      if (name === 'WebAssembly.Module') replace(node.typeName, 'WebAssemblyModule');
    }
    if (ts.isTypeQueryNode(node) && node.exprName.getText() === 'fetch') replace(node, 'Fetch');
    if ((ts.isPropertySignature(node) || ts.isPropertyDeclaration(node)) && node.questionToken && node.type) {
      const open = ts.isFunctionTypeNode(node.type) || ts.isConditionalTypeNode(node.type);
      edits.push({ at: node.type.end, end: node.type.end, text: `${open ? ')' : ''} | undefined` });
      if (open) edits.push({ at: node.type.getStart(), end: node.type.getStart(), text: '(' });
    }
    ts.forEachChild(node, visit);
  };
  const replace = (node: ts.Node, name: string) => {
    used.add(name);
    edits.push({ at: node.getStart(), end: node.end, text: name });
  };
  visit(source);
  let text = declarations;
  for (const { at, end, text: put } of edits.sort((a, b) => b.at - a.at))
    text = text.slice(0, at) + put + text.slice(end);
  const names = [...used].sort().join(', ');
  return [
    // `using` is younger than ES2022; the library is a part of TypeScript.
    '/// <reference lib="esnext.disposable" />',
    ...(page ? ['/// <reference lib="dom" />'] : []),
    ...(names ? [`import type { ${names} } from './platform.js';`] : []),
    text,
  ].join('\n');
}
