// The ways a picture gets into the editor: its buttons, the clipboard, a drop.
import type { ImageInput } from '../kontext/types.ts';
import type { Face } from './face.ts';

/** @param take called with each picture that comes, a file or an address */
export function listenForPictures(
  host: HTMLElement,
  { pick, replace, file }: Face,
  take: (input: ImageInput) => void,
): void {
  const offer = (input: ImageInput | null | undefined) => {
    if (input) take(input);
  };
  for (const button of [pick, replace]) button.addEventListener('click', () => file.click());
  file.addEventListener('change', () => {
    offer(file.files?.[0]);
    // The same file again is a change, too.
    file.value = '';
  });
  host.addEventListener('paste', (event) => offer(event.clipboardData?.files[0]));
  host.addEventListener('dragover', (event) => {
    event.preventDefault();
    host.dataset.drop = '';
  });
  host.addEventListener('dragleave', () => delete host.dataset.drop);
  host.addEventListener('drop', (event) => {
    event.preventDefault();
    delete host.dataset.drop;
    offer(event.dataTransfer?.files[0] ?? (event.dataTransfer?.getData('text/uri-list') || undefined));
  });
}
