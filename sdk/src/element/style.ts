// What <kontext-editor> looks like. Host pages restyle it by custom properties and by ::part().
// The picture gets the room that prompt, buttons and history leave: the whole editor fits the window, at any size.

/** Chromium and Firefox name the thumb differently, and a list of both selectors would be dropped by each. */
const THUMB = `
  appearance: none;
  box-sizing: border-box;
  width: var(--thumb);
  height: var(--thumb);
  border: 3px solid #ffffff;
  border-radius: 50%;
  background: linear-gradient(#ffffff, #ffffff) 35% 50% / 3px 14px no-repeat,
    linear-gradient(#ffffff, #ffffff) 65% 50% / 3px 14px no-repeat, rgb(20 22 28 / 0.6);
  box-shadow: 0 1px 6px rgb(0 0 0 / 0.5);`;
const THUMB_FOCUS = 'outline: 3px solid var(--accent); outline-offset: 3px;';

/** Each colour's default, light and dark. */
const COLORS: Record<string, [light: string, dark: string]> = {
  background: ['#ffffff', '#17181c'],
  surface: ['#f1f2f5', '#24262c'],
  text: ['#1c1d21', '#f0f1f4'],
  muted: ['#55585f', '#b3b7c0'],
  accent: ['#3346c4', '#a9b4ff'],
  'on-accent': ['#ffffff', '#14151a'],
  danger: ['#a3161a', '#ff9d9d'],
};

const colors = (value: (pair: [string, string]) => string): string =>
  Object.entries(COLORS)
    .map(([name, pair]) => `--${name}: var(--kontext-${name}, ${value(pair)});`)
    .join('\n  ');

/** For eyes only it is gone; screen readers still read it. */
const UNSEEN = 'position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);';

/** Controls beside the picture: where there is width for both, and where the window is low. */
const BESIDE = `
  .editor {
    grid-template: 'stage panel' minmax(var(--stage-min), 1fr) / minmax(0, 1fr) minmax(200px, 320px);
  }
  .panel { align-content: start; }
  .editor { column-gap: 16px; }
  #prompt { flex-basis: 100%; }
  .edit, .cancel { flex: 1; }
  .history { flex-wrap: wrap; overflow: hidden auto; max-height: 146px; }`;

export const STYLE = `
:host {
  ${colors(([light]) => light)}
  --radius: var(--kontext-radius, 12px);
  --gap: 10px;
  display: block;
  box-sizing: border-box;
  width: 100%;
  container-type: inline-size;
  font: 1rem/1.4 var(--kontext-font, system-ui, sans-serif);
  color: var(--text);
  background: var(--background);
  border-radius: var(--radius);
}
/* The page decides about light and dark: by its color-scheme, or by that of the element. */
@supports (color: light-dark(#fff, #000)) {
  :host {
  ${colors(([light, dark]) => `light-dark(${light}, ${dark})`)}
  }
}
:host([hidden]), [hidden] { display: none !important; }
.editor {
  --stage-min: 112px;
  box-sizing: border-box;
  display: grid;
  grid-template: 'stage' minmax(var(--stage-min), 1fr) 'panel' auto / minmax(0, 1fr);
  gap: var(--gap);
  height: 100%;
  max-height: var(--kontext-max-height, calc(100vh - 16px));
  max-height: var(--kontext-max-height, calc(100dvh - 16px));
  padding: 12px;
}
/* Asks for the height that the picture has at full width; the stage lies in the same place and takes what there is. */
.sizer { grid-area: stage; min-height: 0; overflow: hidden; visibility: hidden; }
.sizer div { aspect-ratio: var(--ratio, 1.5); }
.stage {
  grid-area: stage;
  position: relative;
  container-type: size;
  min-height: 0;
  display: grid;
  place-items: center;
  overflow: hidden;
  background: var(--surface);
  border-radius: var(--radius);
}
:host([data-drop]) .stage { outline: 3px dashed var(--accent); outline-offset: -8px; }
/* The box of the picture itself. A picture has no writing direction. */
.frame {
  direction: ltr;
  position: relative;
  display: grid;
  width: min(100cqw, 100cqh * var(--ratio, 1.5));
  height: min(100cqh, 100cqw / var(--ratio, 1.5));
}
canvas { grid-area: 1 / 1; width: 100%; height: 100%; min-width: 0; min-height: 0; }
.after { clip-path: inset(0 0 0 var(--split, 0%)); background: var(--surface); }
/* The slider is half a thumb wider than the picture at both ends, so that its thumb's middle is at the split. */
.compare {
  --thumb: min(40px, 100cqh);
  position: absolute;
  inset: 0 calc(var(--thumb) / -2);
  z-index: 1;
  appearance: none;
  width: calc(100% + var(--thumb));
  height: 100%;
  margin: 0;
  background: none;
  cursor: ew-resize;
  touch-action: pan-y;
}
.compare::-webkit-slider-runnable-track { background: none; }
.compare::-moz-range-track { background: none; }
.compare::-webkit-slider-thumb { ${THUMB} }
.compare::-moz-range-thumb { ${THUMB} }
.compare:focus-visible { outline: none; }
.compare:focus-visible::-webkit-slider-thumb { ${THUMB_FOCUS} }
.compare:focus-visible::-moz-range-thumb { ${THUMB_FOCUS} }
.divider {
  position: absolute;
  inset: 0 auto 0 var(--split, 0%);
  width: 3px;
  margin-left: -1.5px;
  background: #ffffff;
  box-shadow: 0 0 4px rgb(0 0 0 / 0.5);
  pointer-events: none;
}
.compare[hidden] + .divider { display: none; }
.pick {
  position: absolute;
  inset: 12px;
  font-size: 1.1em;
  background: none;
  border: 2px dashed var(--muted);
  color: var(--text);
}
.pick small { display: block; color: var(--muted); }
.panel { grid-area: panel; display: grid; gap: var(--gap); grid-template-columns: minmax(0, 1fr); min-width: 0; min-height: 0; }
.row { display: flex; flex-wrap: wrap; align-items: end; gap: 8px; }
label { display: block; margin-bottom: 4px; font-weight: 600; }
#prompt, button {
  font: inherit;
  box-sizing: border-box;
  padding: 9px 14px;
  border: 1px solid transparent;
  border-radius: calc(var(--radius) * 0.6);
  color: var(--text);
  background: var(--surface);
}
#prompt {
  flex: 1;
  min-width: 0;
  max-height: min(9em, 30vh);
  resize: none;
  border-color: var(--muted);
  field-sizing: content;
}
#prompt::placeholder { color: var(--muted); opacity: 1; }
button { cursor: pointer; }
:is(.tool, .cancel):not(:disabled):hover { border-color: var(--muted); }
button:disabled { cursor: default; opacity: 0.55; }
.edit { background: var(--accent); border-color: var(--accent); color: var(--on-accent); font-weight: 600; }
:is(button, #prompt, .history):focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.news { display: grid; gap: 2px; }
progress { width: 100%; margin: 0; accent-color: var(--accent); }
.status, .detail { margin: 0; overflow-wrap: anywhere; }
.status { min-height: 1.4em; max-height: 7em; overflow-y: auto; }
.detail { min-height: 1.4em; color: var(--muted); font-variant-numeric: tabular-nums; }
:host(:not([data-state='editing'])) .detail { display: none; }
:host([data-state='failed']) .status { color: var(--danger); }
.tools { display: flex; flex-wrap: wrap; gap: 8px; }
.tool { display: inline-flex; align-items: center; justify-content: center; gap: 6px; min-width: 44px; }
.tool[aria-pressed='true'] { border-color: var(--accent); color: var(--accent); }
.tool svg { flex: none; width: 1.25em; height: 1.25em; }
:host(:dir(rtl)) .flip svg { transform: scaleX(-1); }
.history { display: flex; gap: 8px; margin: 0; padding: 4px; list-style: none; overflow: auto hidden; }
.history:empty { display: none; }
.history li { flex: none; }
.history button { padding: 2px; display: block; }
.history canvas { display: block; width: 56px; height: 56px; object-fit: contain; border-radius: 6px; }
.history li { display: grid; align-content: start; gap: 4px; }
.history .way { min-width: 0; min-height: 28px; padding: 0 4px; font-size: 12px; line-height: 20px; font-variant-numeric: tabular-nums; }
.history [aria-current] { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent); }
/* Icons alone where words would need two rows; the words stay as names. */
@container (max-width: 560px) {
  .tool { flex: 1; padding-inline: 4px; }
  .tool span { ${UNSEEN} }
}
@media (max-height: 700px) {
  .history canvas { width: 40px; height: 40px; }
  .editor { --gap: 8px; padding: 8px; }
}
@container (min-width: 900px) { ${BESIDE} }
@media (max-height: 560px) {
  @container (min-width: 480px) {
    ${BESIDE}
    .editor { --stage-min: 80px; --gap: 6px; }
    .tool { flex: 1; padding-inline: 4px; }
    .tool span { ${UNSEEN} }
    .history { flex-wrap: nowrap; overflow: auto hidden; }
  }
}
/* A phone on its side: the label is the placeholder's to show, the button stands beside the field. */
@media (max-height: 400px) {
  @container (min-width: 480px) {
    form label { ${UNSEEN} }
    #prompt { flex-basis: 0; max-height: 24vh; }
    .edit, .cancel { flex: none; }
    .status { max-height: 2.8em; }
  }
}
@media (forced-colors: active) {
  .edit, .history [aria-current] { forced-color-adjust: none; }
}
`;
