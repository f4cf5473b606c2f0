// A model's files with what is read of them counted.
import type { ModelFiles } from '../../sdk/src/model/files.ts';

/** @param counts which files are counted, by name; `count` is called with the bytes of each read */
export function countedFiles(
  files: ModelFiles,
  counts: (name: string) => boolean,
  count: (bytes: number) => void,
): ModelFiles {
  return {
    ...files,
    async open(name, ...more) {
      const bytes = await files.open(name, ...more);
      if (!bytes || !counts(name)) return bytes;
      return {
        ...bytes,
        read: (start, end, signal) => {
          count(end - start);
          return bytes.read(start, end, signal);
        },
      };
    },
  };
}
