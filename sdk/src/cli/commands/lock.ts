// `kontext lock`: writes down what every byte of a model must be.
import { lockFolder } from '../../model/lock-folder.ts';
import { byteProgress } from '../byte-progress.ts';
import { defineCommand, usage } from '../grammar.ts';

export const lock = defineCommand({
  summary:
    'Write kontext.lock.json into a model’s folder: a SHA-256 of each 4 MiB, to which loading then holds every byte.',
  usage: ['DIR'],
  examples: ['kontext lock models/flux1-kontext-dev'],
  notes:
    'Lock a model that is known to be whole, and publish the lock with it. Anything changed later needs a new lock.',
  flags: {},
  /** @throws KontextError `weights-invalid` when the folder cannot be read or written */
  async run({ words, signal }) {
    const [folder, ...more] = words;
    if (folder === undefined || more.length > 0) throw usage('kontext lock takes the folder of one model.');
    const progress = byteProgress(process.stderr, 'hashing');
    const { files } = await lockFolder(folder, { signal, onProgress: progress.show }).finally(progress.clear);
    const bytes = Object.values(files).reduce((sum, { size }) => sum + size, 0);
    console.log(`${folder}: ${Object.keys(files).length} files, ${(bytes / 1e6).toFixed(1)} MB locked.`);
  },
});
