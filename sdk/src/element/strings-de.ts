// The element's texts in German, and the example to copy for other languages.
// An entry of its own: `import { german } from 'kontext-webgpu/strings/de'`, then `editor.strings = german`.
import type { KontextErrorCode } from '../../../runtime/src/errors.ts';
import type { KontextEditorStrings, LoadedPart } from './strings.ts';

const PARTS: Record<LoadedPart, string> = {
  text: 'Textnetze',
  picture: 'Bildnetz',
  painting: 'Malnetz',
};

/** Errors that a visitor can do something about; the others are shown as they are. */
const ERRORS: Partial<Record<KontextErrorCode, string>> = {
  'image-invalid': 'Diese Datei lässt sich nicht als Bild lesen. PNG, JPEG und WebP gehen.',
  'out-of-memory':
    'Der Speicher der Grafikkarte reicht nicht. Andere Fenster schließen oder ein kleineres Bild nehmen.',
  'device-lost': 'Die Grafikkarte wurde zurückgesetzt. Der nächste Versuch öffnet sie neu.',
  'download-failed': 'Das Modell lässt sich nicht laden. Besteht die Verbindung zum Netz?',
  'webgpu-unavailable':
    'Dieser Browser kann hier nicht mit der Grafikkarte rechnen (WebGPU). Ein aktueller Chrome, Edge, Firefox oder Safari mit ' +
    'eingeschalteter Grafikbeschleunigung kann es.',
};

/** {@link KontextEditorStrings} in German. */
export const german: KontextEditorStrings = {
  locale: 'de',
  prompt: 'Was soll sich ändern?',
  placeholder: 'make the background blue',
  pick: 'Bild wählen',
  pickHint: 'oder hierher ziehen oder einfügen',
  edit: 'Ändern',
  cancel: 'Abbrechen',
  undo: 'Rückgängig',
  redo: 'Wiederholen',
  download: 'Herunterladen',
  replace: 'Anderes Bild',
  mask: 'Bereich',
  masking: {
    brush: 'Pinsel (B)',
    eraser: 'Radierer (E)',
    rectangle: 'Rechteck (R)',
    undoStroke: 'Strich zurücknehmen (Strg Z)',
    clear: 'Bereich leeren (Entf)',
    size: 'Größe',
    feather: 'Weicher Rand',
    canvas:
      'Bereich, der sich ändern darf. Pfeiltasten bewegen, die Leertaste beginnt und beendet einen Strich, eckige Klammern ändern die ' +
      'Größe, Escape verlässt ihn.',
  },
  adapters: 'Stile',
  strength: (name) => `Stärke von ${name}`,
  toolbar: 'Bild',
  history: 'Verlauf',
  way: (number, of) => `Versuch ${number} von ${of} von diesem Bild aus; den nächsten zeigen`,
  compare: 'Bild vor der Änderung zeigen',
  picture: 'Aktuelles Bild',
  before: 'Bild vor der Änderung',
  progress: 'Fortschritt der Änderung',
  file: 'Bilddatei',
  original: 'Original',
  opened: (width, height) => `Bild geöffnet, ${width} mal ${height} Pixel.`,
  showing: (title) => `Gezeigt: ${title}`,
  opening: 'Das Modell wird geöffnet',
  queued: (ahead) => (ahead === 1 ? 'Wartet auf eine andere Änderung' : `Wartet auf ${ahead} andere Änderungen`),
  stages: {
    'encode-image': 'Das Bild wird gelesen',
    'encode-text': 'Die Anweisung wird gelesen',
    modulation: 'Die Schritte werden vorbereitet',
    denoise: 'Das Bild wird gemalt',
    decode: 'Das Bild wird entwickelt',
  },
  compiling: (done, total) => `Grafikkarte wird vorbereitet, ${done} von ${total}`,
  loading: (part, loaded, total) => `${PARTS[part]}: ${loaded} von ${total} geladen`,
  step: (step, steps) => `Schritt ${step} von ${steps}`,
  left(seconds) {
    if (seconds >= 100) return `noch etwa ${Math.round(seconds / 60)} Minuten`;
    if (seconds >= 60) return 'noch etwa eine Minute';
    return seconds >= 10 ? `noch etwa ${seconds} Sekunden` : 'noch wenige Sekunden';
  },
  done: (seconds, prompt) => `Fertig nach ${seconds} Sekunden: ${prompt}`,
  truncated: 'Die Anweisung ist länger, als das Modell liest: Ihr Ende hatte keine Wirkung.',
  cancelled: 'Abgebrochen.',
  noModel: 'Dieser Editor hat kein Modell: Sein Attribut `model` muss eine URL sein.',
  error: (error) => ERRORS[error.code] ?? error.message,
};
