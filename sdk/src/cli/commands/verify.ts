// `kontext verify`: reads every byte of a model and compares it with the lock.
import { KontextError } from '../../../../runtime/src/errors.ts';
import { verifyFiles } from '../../model/lock-folder.ts';
import { placeOf } from '../../model/open.ts';
import { byteProgress } from '../byte-progress.ts';
import { defineCommand, usage } from '../grammar.ts';

export const verify = defineCommand({
  summary: 'Compare every byte of a model with its kontext.lock.json; name each damaged file, tensor and offset.',
  usage: ['DIR|URL'],
  examples: ['kontext verify models/flux1-kontext-dev'],
  flags: { json: { help: 'what is wrong, as JSON' } },
  /** @throws KontextError `weights-invalid` when anything is wrong, or there is no lock; `download-failed` */
  async run({ words, values, signal }) {
    const [place, ...more] = words;
    if (place === undefined || more.length > 0) throw usage('kontext verify takes the folder or URL of one model.');
    const progress = byteProgress(process.stderr, 'verifying');
    const found = await verifyFiles(placeOf(place), { signal, onProgress: progress.show }).finally(progress.clear);
    if (values.json) console.log(JSON.stringify({ sound: found.length === 0, found }));
    else for (const { file, problem } of found) console.log(`${file} ${problem}`);
    if (found.length > 0) {
      throw new KontextError(
        'weights-invalid',
        `${place} is damaged: ${found.length} finding(s). Get the files again.`,
        {
          found,
        },
      );
    }
    if (!values.json) console.log(`${place} is sound: every byte is as its lock says.`);
  },
});
