// Kontext.load refuses what it does not know, before it opens anything: an option that does nothing is worse than none.
import { expect, it } from 'vitest';
import { Engine } from '../../../sdk/src/kontext/kontext.ts';
import { nearestName } from '../../../sdk/src/kontext/nearest.ts';

const platform = { decodeImage: () => Promise.reject(new Error('no picture is opened here')) };
const load = (options: unknown) => Engine.open(platform, '/nowhere', options as object);

it.each<[options: unknown, message: RegExp]>([
  [{ quantisation: 'q4' }, /^Unknown option quantisation of Kontext.load. Did you mean quantization\?$/],
  [{ Memory: 'phased' }, /Did you mean memory\?/],
  [{ preview_decoder: 'x' }, /Did you mean previewDecoder\?/],
  [{ colour: 1 }, /^Unknown option colour of Kontext.load. Known options: .*precision.*signal/],
  [{ device: { adaptor: 'Intel' } }, /^Unknown option adaptor of device. Did you mean adapter\?$/],
  [{ host: { wasmURL: 'x', wasmBytes: 1 } }, /of host. Did you mean wasmUrl\?/],
  [null, /Kontext.load takes an object of options/],
  [{ quantization: 'q3' }, /quantization is "q3"; it must be one of/],
])('refuses %j', async (options, message) => {
  await expect(load(options)).rejects.toMatchObject({
    code: 'invalid-request',
    message: expect.stringMatching(message),
  });
});

it('finds the name that was meant, and none where another word was meant', () => {
  const known = ['steps', 'guidance', 'maxSequenceLength', 'negativePrompt', 'size', 'seed'];
  const pairs: [string, string | undefined][] = [
    ['step', 'steps'],
    ['setps', 'steps'],
    ['guidence', 'guidance'],
    ['max_sequence_length', 'maxSequenceLength'],
    ['negative-promt', 'negativePrompt'],
    ['sieze', 'size'],
    ['colour', undefined],
    ['', undefined],
  ];
  for (const [given, meant] of pairs) expect([given, nearestName(given, known)]).toEqual([given, meant]);
});
