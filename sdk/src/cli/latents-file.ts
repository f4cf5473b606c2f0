// Latents in safetensors files: one tensor `latents` of float32 `[images, tokens, 64]`, as diffusers packs them.
// For going on from another program's latents and for comparing with them.
import { KontextError } from '../../../runtime/src/errors.ts';
import { fileBytes } from '../../../runtime/src/weights/bytes.ts';
import { openSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { RowReader } from '../../../runtime/src/weights/rows.ts';
import { TOKEN_CHANNELS } from '../kontext/latents.ts';

/**
 * @param path file with one tensor, or one called `latents`, of shape `[…, 64]` in float32, float16 or bfloat16
 * @throws KontextError `invalid-request` when it holds something else, `weights-invalid` when it is no safetensors file
 */
export async function readLatents(path: string): Promise<Float32Array<ArrayBuffer>> {
  const source = await openSafetensors(await fileBytes(path));
  try {
    const names = [...source.tensors.keys()];
    const name = names.length === 1 ? names[0]! : 'latents';
    const tensor = source.tensors.get(name);
    if (!tensor) {
      throw new KontextError('invalid-request', `${path} has no tensor "latents"; it has ${names.join(', ')}.`, {
        path,
      });
    }
    if (tensor.shape.at(-1) !== TOKEN_CHANNELS) {
      throw new KontextError(
        'invalid-request',
        `${path}: "${name}" has shape [${tensor.shape.join(', ')}]; packed latents end in ${TOKEN_CHANNELS}.`,
        { path },
      );
    }
    // Rows as the reader sees them are entries of axis 0, whatever the number of axes.
    const rows = Array.from({ length: tensor.shape[0]! }, (_, i) => i);
    return await new RowReader(source).rows(name, rows);
  } finally {
    await source.close();
  }
}

/** The file that holds the latents of all pictures of a result. */
export function latentsBytes(latents: readonly Float32Array[]): Uint8Array {
  const values = latents.reduce((sum, { length }) => sum + length, 0);
  const shape = [latents.length, values / latents.length / TOKEN_CHANNELS, TOKEN_CHANNELS];
  const entry = { latents: { dtype: 'F32', shape, data_offsets: [0, values * 4] } };
  // The header is padded so that the data starts at a multiple of 8, as the format asks.
  const json = JSON.stringify(entry);
  const header = new TextEncoder().encode(json.padEnd(Math.ceil(json.length / 8) * 8));
  const file = new Uint8Array(8 + header.length + values * 4);
  new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
  file.set(header, 8);
  let at = 8 + header.length;
  for (const part of latents) {
    file.set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), at);
    at += part.byteLength;
  }
  return file;
}
