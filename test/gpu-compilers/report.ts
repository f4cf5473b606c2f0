// Compares what the compilers made of the kernels with the committed table: run by run.sh after the logs are written.
// usage: report.ts [--write] [--apart] FOLDER target …
// `--apart`: of another tier than the table's, so that there is nothing to compare with.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { rowsOf, TARGETS, type TargetName } from './rows.ts';
import { changes, complaints, section, sectionIn } from './table.ts';

const TABLE = fileURLToPath(new URL('../../docs/benchmarks/gpu-compilers.md', import.meta.url));
const write = process.argv.includes('--write');
const apart = process.argv.includes('--apart');
const [folder, ...targets] = process.argv.slice(2).filter((a) => !a.startsWith('--')) as [string, ...TargetName[]];
let document = readFileSync(TABLE, 'utf8');
let failed = false;
for (const target of targets) {
  if (!(target in TARGETS)) throw new Error(`unknown target "${target}"; known: ${Object.keys(TARGETS).join(', ')}`);
  const rows = rowsOf(target, readFileSync(`${folder}/${target}.log`, 'utf8'));
  writeFileSync(`${folder}/${target}.json`, `${JSON.stringify(rows, null, 1)}\n`);
  const committed = apart ? undefined : sectionIn(document, target);
  console.log(section(target, rows));
  for (const line of changes(rows, committed)) console.log(`  ${line}`);
  const wrong = complaints(target, rows, committed);
  for (const line of wrong) console.error(`✗ ${line}`);
  failed ||= wrong.length > 0;
  const text = `${section(target, rows)}\n`;
  document = committed === undefined ? `${document.trimEnd()}\n\n${text}` : document.replace(committed, () => text);
}
if (write) writeFileSync(TABLE, `${document.trimEnd()}\n`);
process.exit(failed && !write ? 1 : 0);
