// What a Node app sees: the engine, its errors, the demo model on disk.
import { demoModel, Kontext, KontextError } from 'kontext-webgpu';

const error = await Kontext.load(demoModel(), { device: { adapter: 'no such adapter' } }).catch((error) => error);
console.log(JSON.stringify({ model: demoModel(), typed: error instanceof KontextError, code: error.code }));
