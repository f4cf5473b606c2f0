// <kontext-editor> in TSX, for React 19: `import 'kontext-webgpu/react'` once in the app; it brings the element, too.
// React 19 sets what the element has as properties, and listens to `on` and an event's name.
import type { DetailedHTMLProps, HTMLAttributes } from 'react';
import type { KontextEditor, KontextEditorEvents } from './element.js';

type Listeners = { [Name in keyof KontextEditorEvents as `on${Name}`]?: (event: KontextEditorEvents[Name]) => void };

/** Properties of `<kontext-editor>` in TSX. */
export interface KontextEditorProps
  extends DetailedHTMLProps<HTMLAttributes<KontextEditor>, KontextEditor>,
    Listeners,
    Partial<Pick<KontextEditor, 'engine' | 'options'>> {
  /** URL of the model's folder. */
  model?: string | undefined;
  /** Denoising steps. */
  steps?: number | string | undefined;
  /** Of the noise. */
  seed?: number | string | undefined;
  /** Distilled guidance. */
  guidance?: number | string | undefined;
  /** Steps from one preview to the next. */
  preview?: number | string | undefined;
  /** Texts that differ from English. */
  strings?: Partial<KontextEditor['strings']> | undefined;
}

declare module 'react' {
  namespace JSX {
    interface IntrinsicElements {
      'kontext-editor': KontextEditorProps;
    }
  }
}
