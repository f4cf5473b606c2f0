// A folder of pictures whose disk is full whenever a test says so.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { ApiError, FolderStore } from '../../../sdk/src/server/index.ts';

export class UnreliableStore extends FolderStore {
  readonly folder: string;
  full = false;

  constructor() {
    const folder = mkdtempSync(join(tmpdir(), 'kontext-store-'));
    super(folder);
    this.folder = folder;
  }

  override async put(key: string, bytes: Uint8Array): Promise<void> {
    if (this.full) throw new ApiError(507, 'no-space', 'The server has no room for more pictures.');
    await super.put(key, bytes);
  }

  /** Pictures under their own names that are not whole. What a killed worker began has another name, and is swept later. */
  async damaged(): Promise<string[]> {
    const names = readdirSync(this.folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
      name.endsWith('.png'),
    );
    const whole = await Promise.all(
      names.map((name) =>
        sharp(join(this.folder, name), { failOn: 'error' })
          .stats()
          .then(
            () => true,
            () => false,
          ),
      ),
    );
    return names.filter((_, i) => !whole[i]);
  }

  /** Everything, at the end of a test. */
  override async remove(prefix: string): Promise<void> {
    if (prefix === '') rmSync(this.folder, { recursive: true, force: true });
    else await super.remove(prefix);
  }
}
