// Everything <kontext-editor> says, in one object that an app may replace whole or in part; English is built in.
// Texts with numbers are functions, so that each language can inflect as it must.
import type { KontextError } from '../../../runtime/src/errors.ts';
import type { Stage } from '../kontext/types.ts';

/** What is being read while weights load. */
export type LoadedPart = 'text' | 'picture' | 'painting';

/** The texts of the element: set {@link KontextEditor.strings} to any of them. */
export interface KontextEditorStrings {
  /** BCP 47 tag that numbers are written by, such as `en`. */
  locale: string;
  /** Label of the field for the instruction. */
  prompt: string;
  /** Example inside the empty field. */
  placeholder: string;
  /** Button of the empty stage. */
  pick: string;
  /** Its second line. */
  pickHint: string;
  /** Starts an edit. */
  edit: string;
  /** Stops the edit that runs. */
  cancel: string;
  /** Shows the picture before. */
  undo: string;
  /** Shows the picture after. */
  redo: string;
  /** Saves the picture shown. */
  download: string;
  /** Opens another picture. */
  replace: string;
  /** Limits the next edit to an area that is drawn. */
  mask: string;
  /** Names of the tools that draw the area, and how the keyboard draws. */
  masking: Record<'brush' | 'eraser' | 'rectangle' | 'undoStroke' | 'clear' | 'size' | 'feather' | 'canvas', string>;
  /** Heading of the list of adapters. */
  adapters: string;
  /** Name of an adapter's slider. */
  strength(name: string): string;
  /** Name of the group of those buttons. */
  toolbar: string;
  /** Name of the strip of pictures. */
  history: string;
  /** Name of the button that leads to another result of the same picture, where there are several: which one this is, from 1. */
  way(number: number, of: number): string;
  /** Name of the slider between before and after. */
  compare: string;
  /** Name of the picture shown. */
  picture: string;
  /** Name of the picture before the edit. */
  before: string;
  /** Name of the progress bar. */
  progress: string;
  /** Name of the file field. */
  file: string;
  /** Title of the picture that was opened. */
  original: string;
  /** A picture was opened. */
  opened(width: number, height: number): string;
  /** Another picture of the history is shown. */
  showing(title: string): string;
  /** The model is being opened, before the first edit. */
  opening: string;
  /** Other edits come first. */
  queued(ahead: number): string;
  /** What a stage does. */
  stages: Record<Stage, string>;
  /** Kernels are compiled for this graphics card. */
  compiling(done: number, total: number): string;
  /** Weights are downloaded or read; sizes come with their unit. */
  loading(part: LoadedPart, loaded: string, total: string): string;
  /** Denoising, step by step. */
  step(step: number, steps: number): string;
  /** Time left: whole seconds, already rounded. */
  left(seconds: number): string;
  /** An edit is done. */
  done(seconds: string, prompt: string): string;
  /** The instruction was longer than the model reads. */
  truncated: string;
  /** The edit was stopped. */
  cancelled: string;
  /** Neither `model` nor `engine` is set. */
  noModel: string;
  /** What to show for an error; its `code` stays the same between versions. */
  error(error: KontextError): string;
}

const PARTS: Record<LoadedPart, string> = {
  text: 'the text encoders',
  picture: 'the picture encoder',
  painting: 'the painting network',
};

/** The element's own texts. */
export const english: KontextEditorStrings = {
  locale: 'en',
  prompt: 'What should change?',
  placeholder: 'make the background blue',
  pick: 'Choose a picture',
  pickHint: 'or drop or paste one here',
  edit: 'Edit',
  cancel: 'Cancel',
  undo: 'Undo',
  redo: 'Redo',
  download: 'Download',
  replace: 'Other picture',
  mask: 'Area',
  masking: {
    brush: 'Brush (B)',
    eraser: 'Eraser (E)',
    rectangle: 'Rectangle (R)',
    undoStroke: 'Undo stroke (Ctrl Z)',
    clear: 'Clear area (Delete)',
    size: 'Size',
    feather: 'Soft edge',
    canvas:
      'Area that may change. Arrow keys move, Space starts and ends a stroke, brackets change the size, Escape leaves.',
  },
  adapters: 'Styles',
  strength: (name) => `Strength of ${name}`,
  toolbar: 'Picture',
  history: 'History',
  way: (number, of) => `Attempt ${number} of ${of} from this picture; show the next`,
  compare: 'Show the picture before the edit',
  picture: 'Current picture',
  before: 'Picture before the edit',
  progress: 'Progress of the edit',
  file: 'Picture file',
  original: 'Original',
  opened: (width, height) => `Picture opened, ${width} by ${height} pixels.`,
  showing: (title) => `Showing: ${title}`,
  opening: 'Opening the model',
  queued: (ahead) => (ahead === 1 ? 'Waiting for another edit' : `Waiting for ${ahead} other edits`),
  stages: {
    'encode-image': 'Reading the picture',
    'encode-text': 'Reading the instruction',
    modulation: 'Preparing the steps',
    denoise: 'Painting',
    decode: 'Developing the picture',
  },
  compiling: (done, total) => `preparing the graphics card, ${done} of ${total}`,
  loading: (part, loaded, total) => `loading ${PARTS[part]}, ${loaded} of ${total}`,
  step: (step, steps) => `step ${step} of ${steps}`,
  left(seconds) {
    if (seconds >= 100) return `about ${Math.round(seconds / 60)} minutes left`;
    if (seconds >= 60) return 'about a minute left';
    return seconds >= 10 ? `about ${seconds} seconds left` : 'a few seconds left';
  },
  done: (seconds, prompt) => `Done in ${seconds} seconds: ${prompt}`,
  truncated: 'The instruction is longer than the model reads: its end had no effect.',
  cancelled: 'Cancelled.',
  noModel: 'This editor has no model: set its attribute `model` to a URL.',
  error: (error) => error.message,
};
