// Writes the tables of docs/guide/models-files.md: npm run docs:files. The second is measured: an edit with each kind of file (some minutes
// on a CPU); with --types only the first is written.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { typesTable } from './files-table.ts';

const path = fileURLToPath(new URL('../docs/guide/models-files.md', import.meta.url));
let page = readFileSync(path, 'utf8');
const put = (name: string, text: string) => {
  const between = new RegExp(`(<!-- ${name} -->\n)[\\s\\S]*?(<!-- end of ${name} -->)`);
  page = page.replace(between, (_, start, end) => `${start}${text}\n${end}`);
};

put('types', typesTable());
if (!process.argv.includes('--types')) put('measured', await measuredTable());
writeFileSync(path, page);

/** An edit of the tiny reference model with each public kind of file, beside the reference's picture of the same file and of the 16-bit one. */
async function measuredTable(): Promise<string> {
  const { Kontext } = await import('../sdk/src/node.ts');
  const { TINY_LAYOUTS, worstOf } = await import('../test/support/tiny-layouts.ts');
  const { psnr } = await import('../test/support/psnr.ts');
  const decibels = (value: number) => (value === Number.POSITIVE_INFINITY ? 'equal' : `${value.toFixed(1)} dB`);
  const root = mkdtempSync(join(tmpdir(), 'kontext-docs-'));
  const rows: string[] = [];
  try {
    for (const [i, layout] of TINY_LAYOUTS.entries()) {
      const folder = join(root, String(i));
      layout.write(folder);
      const { source } = layout;
      const at = (name: string) => (name === '' ? folder : join(folder, name));
      const parts =
        typeof source === 'string' ? undefined : Object.entries(source).map(([part, name]) => [part, at(name)]);
      await using kontext = await Kontext.load(parts ? Object.fromEntries(parts) : at(source as string), {
        precision: 'f32',
      });
      const { image, latents } = await kontext.edit({ ...layout.edit, autoResize: false });
      const own = layout.picture(image);
      const plain = layout.plain?.(image);
      rows.push(
        `| ${layout.name} | ${worstOf(latents[0]!, layout.expected()).toExponential(0)} | ${decibels(psnr(image, own))} | ${
          plain ? decibels(psnr(own, plain)) : '—'
        } |`,
      );
      console.log(rows.at(-1));
    }
  } finally {
    rmSync(root, { recursive: true });
  }
  return [
    '| file | furthest latent from the reference’s | picture, to the reference’s of the same file | the reference’s own, to that of the 16-bit file |',
    '| --- | --- | --- | --- |',
    ...rows,
  ].join('\n');
}
