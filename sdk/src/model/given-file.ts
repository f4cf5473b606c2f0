// A path or URL that names one file in the model's place: which folder is the model's, and which file of it was meant.

const WEIGHTS_NAME = /\.(safetensors|sft|gguf|safetensors\.index(\.[\w-]+)?\.json)$/i;

/** Folders of one network: the other parts lie in folders beside them (diffusers, ComfyUI, whose users sort files into folders). */
const NETWORK_FOLDER = /^(?:transformer|(?:diffusion_models|unet|checkpoints)(?:\/[^/]+)?)$/;

/** A file's path cut at the model's folder: the one it is in, or above the folder of its network. */
export function modelAndFile(path: string): [root: string, file: string] {
  const segments = path.split(/[\\/]/);
  for (const depth of [3, 2]) {
    const file = segments.slice(-depth);
    if (file.length < depth || !NETWORK_FOLDER.test(file.slice(0, -1).join('/'))) continue;
    return [folderOf(path, segments.slice(0, -depth)), file.join('/')];
  }
  return [folderOf(path, segments.slice(0, -1)), segments.at(-1)!];
}

/** The same of a URL, whose query stays; without `file` when it names a folder. */
export function modelAndFileAt(source: string | URL): { base: URL; file?: string } {
  const base = new URL(source);
  if (!WEIGHTS_NAME.test(base.pathname)) return { base };
  const [root, file] = modelAndFile(base.pathname);
  base.pathname = `${root}/`;
  return { base, file: decodeURIComponent(file) };
}

/** @returns the part of `path` that these first segments are, with the slashes it has */
function folderOf(path: string, segments: readonly string[]): string {
  if (segments.length === 0) return '.';
  return path.slice(0, segments.join('/').length) || '/';
}
