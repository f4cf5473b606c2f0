// `kontext download`: a model from the hub onto this disk, resumed and verified.
import { downloadHub } from '../../hub/open.ts';
import { byteProgress } from '../byte-progress.ts';
import { defineCommand, usage } from '../grammar.ts';

export const download = defineCommand({
  summary: 'Download what a model needs from the Hugging Face hub; goes on where it stopped, and verifies SHA-256.',
  usage: ['hf:OWNER/NAME[@REVISION][:FILE]'],
  examples: [
    'kontext download hf:black-forest-labs/FLUX.1-Kontext-dev -o models/kontext',
    'kontext download hf:owner/name@v1.0:flux1-kontext-dev-Q4_0.gguf -o models',
  ],
  notes:
    'Gated models: accept the licence on the model’s page, then set HF_TOKEN. HF_ENDPOINT names a mirror. ' +
    'kontext edit --model hf:… downloads by itself, and uses what Hugging Face’s own tools have in their cache.',
  flags: {
    output: { value: 'DIR', short: 'o', help: 'folder (default: one below the user’s cache folder)' },
    json: { help: 'print the folder as JSON' },
  },
  /** @throws KontextError `download-failed`, `invalid-request`, `aborted` */
  async run({ words, values, signal }) {
    const [address, ...more] = words;
    if (address === undefined || more.length > 0) throw usage('kontext download takes one address: hf:OWNER/NAME.');
    const progress = byteProgress(process.stderr, 'downloading');
    const show = (event: { file: string; loadedBytes: number; totalBytes: number }) =>
      progress.show({ file: event.file, bytes: event.loadedBytes, totalBytes: event.totalBytes });
    const folder = await downloadHub(address, { signal, onProgress: show }, values.output).finally(progress.clear);
    console.log(values.json ? JSON.stringify({ folder }) : folder);
  },
});
