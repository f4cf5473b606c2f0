// What a file is, from its first bytes: names lie, and downloads fail in ways that leave a file behind.

import type { ByteSource } from '../bytes.ts';

/** Containers of weights, and what people have in their place. */
export type Container =
  | 'safetensors'
  | 'gguf'
  | 'empty'
  | 'lfs-pointer'
  | 'html'
  | 'json'
  | 'pickle'
  | 'zip'
  | 'onnx'
  | 'unknown';

/** The file's kind by its content. */
export async function identifyContainer(bytes: ByteSource, signal?: AbortSignal): Promise<Container> {
  if (bytes.size === 0) return 'empty';
  return containerOf(await bytes.read(0, Math.min(bytes.size, 512), signal));
}

function containerOf(start: Uint8Array): Container {
  const text = new TextDecoder('latin1').decode(start);
  if (text.startsWith('GGUF')) return 'gguf';
  if (text.startsWith('version https://git-lfs.github.com/')) return 'lfs-pointer';
  // Eight bytes of length, then a JSON object.
  if (start.length > 8 && start[8] === 0x7b && start[6] === 0 && start[7] === 0) return 'safetensors';
  if (text.startsWith('PK\x03\x04')) return 'zip';
  // Protocol 2 and later: 0x80, the version.
  if (start[0] === 0x80 && start[1]! >= 2 && start[1]! <= 5) return 'pickle';
  const trimmed = text.replace(/^(\u00ef\u00bb\u00bf)?\s+/, '').toLowerCase();
  if (/^<(!doctype|html|head|body|\?xml|script)/.test(trimmed)) return 'html';
  // A protobuf of a model: its version as field 1, then the producer's name as field 2.
  if (start[0] === 0x08 && start[1]! < 0x20 && start[2] === 0x12 && /pytorch|onnx|ort|tf2onnx/i.test(text))
    return 'onnx';
  if (/^[{[]/.test(trimmed)) return 'json';
  return 'unknown';
}

/** What to say about a file that holds no readable weights: what it is and what to do. */
export const CONTAINER_ADVICE: Readonly<Record<Exclude<Container, 'safetensors' | 'gguf'>, string>> = {
  empty: 'is empty: the download stopped before it began. Download it again',
  'lfs-pointer':
    'is a Git LFS pointer, not the file itself: the repository was cloned without git-lfs. Run "git lfs pull" in it, or download the file',
  html: 'is a web page: the server sent a page (a login, or an error) in place of the file. Download it again, signed in where the model asks for it',
  json: 'is a JSON text, not weights. Give the .safetensors or .gguf file',
  pickle:
    'is a PyTorch pickle (.pt, .pth, .bin, .ckpt). Pickles can run any code when they are read and are never opened here. Use the .safetensors file',
  zip: 'is a zip archive, as PyTorch writes its pickles (.pt, .pth, .bin, .ckpt). Pickles can run any code when they are read and are never opened here. Use the .safetensors file, or unpack an archive that holds one',
  onnx: 'is an ONNX model. Use the weights as .safetensors or .gguf',
  unknown:
    'is neither a safetensors nor a GGUF file. It may be damaged, or encrypted, or of another kind. Download it again',
};
