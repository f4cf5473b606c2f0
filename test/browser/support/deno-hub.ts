// Run by Deno: loads a model from the hub at an address and says how that went, as one line of JSON.
import process from 'node:process';
import { Kontext, type KontextError } from 'kontext-webgpu';
import { create } from 'webgpu';

const [endpoint, folder] = process.argv.slice(2) as [string, string];
// Dawn lives as long as this object.
const gpu = create(['enable-dawn-features=allow_unsafe_apis']);
const told: Record<string, unknown> = {};
try {
  const kontext = await Kontext.load('hf:owner/model', {
    device: { gpu },
    hub: { endpoint, folder, request: { attempts: 1 } },
    onDownload: ({ loadedBytes, totalBytes }) => Object.assign(told, { loaded: loadedBytes, total: totalBytes }),
  });
  await kontext.close();
} catch (error) {
  const { code, message } = error as KontextError;
  Object.assign(told, { code, message });
}
console.log(JSON.stringify(told));
process.exit(0);
