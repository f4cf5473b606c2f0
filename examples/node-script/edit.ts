// Edits one picture and shows progress: the SDK in a script.
// From a clone: npx tsx examples/node-script/edit.ts [PICTURE] [PROMPT] [OUT]; in an app the same lines run with plain node.
import { demoModel, Kontext, KontextError, saveImage } from 'kontext-webgpu';

const [picture, prompt, out] = process.argv.slice(2);
const kontext = await Kontext.load(demoModel());
try {
  const result = await kontext.edit({
    image: picture ?? new URL('../demo-model/inputs/apple-on-red.png', import.meta.url),
    prompt: prompt ?? 'make the background blue',
    seed: 1,
    onProgress: (event) => {
      if (event.type === 'step') console.log(`step ${event.step} of ${event.steps}, ${event.stepMs.toFixed(0)} ms`);
    },
  });
  await saveImage(out ?? 'edited.png', result.image);
  console.log(`${out ?? 'edited.png'}, seed ${result.seed}, ${(result.timings.totalMs / 1000).toFixed(1)} s`);
} catch (error) {
  if (!(error instanceof KontextError)) throw error;
  console.error(`${error.code}: ${error.message}`);
  process.exitCode = 1;
} finally {
  await kontext.close();
}
