// What <kontext-editor> looks like: its markup and its style, light and dark.
// Host pages restyle it by custom properties and by ::part().

export const MARKUP = `
<div part="stage" class="stage">
  <canvas part="picture before" class="before" role="img" aria-label="Picture before the edit" hidden></canvas>
  <canvas part="picture after" class="after" role="img" aria-label="Current picture" hidden></canvas>
  <input class="compare" part="compare" type="range" min="0" max="100" value="0" aria-label="Show the picture before the edit" hidden>
  <div class="divider"></div>
  <button part="pick" class="pick" type="button">Choose a picture<small>or drop or paste one here</small></button>
</div>
<form part="form">
  <label for="prompt">What should change?</label>
  <div class="row">
    <input part="prompt" id="prompt" type="text" autocomplete="off" placeholder="make the background blue" required>
    <button part="button edit" class="edit" type="submit" disabled>Edit</button>
    <button part="button cancel" class="cancel" type="button" hidden>Cancel</button>
  </div>
</form>
<progress part="progress" max="1" value="0" aria-label="Progress of the edit" hidden></progress>
<p part="status" class="status" role="status"></p>
<div part="toolbar" class="row" role="group" aria-label="Picture">
  <button part="button" class="undo" type="button" disabled>Undo</button>
  <button part="button" class="redo" type="button" disabled>Redo</button>
  <button part="button" class="download" type="button" disabled>Download</button>
  <button part="button" class="replace" type="button" disabled>Other picture</button>
</div>
<ol part="history" class="history" aria-label="History"></ol>
<input class="file" type="file" accept="image/*" aria-label="Picture file" tabindex="-1" hidden>
`;

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

export const STYLE = `
:host {
  color-scheme: light dark;
  --background: var(--kontext-background, light-dark(#ffffff, #17181c));
  --surface: var(--kontext-surface, light-dark(#f1f2f5, #24262c));
  --text: var(--kontext-text, light-dark(#1c1d21, #f0f1f4));
  --muted: var(--kontext-muted, light-dark(#55585f, #b3b7c0));
  --accent: var(--kontext-accent, light-dark(#3346c4, #a9b4ff));
  --on-accent: var(--kontext-on-accent, light-dark(#ffffff, #14151a));
  --radius: var(--kontext-radius, 12px);
  display: grid;
  gap: 12px;
  padding: 16px;
  font: 16px/1.4 var(--kontext-font, system-ui, sans-serif);
  color: var(--text);
  background: var(--background);
  border-radius: var(--radius);
}
[hidden] { display: none !important; }
.stage {
  position: relative;
  aspect-ratio: 1;
  display: grid;
  place-items: center;
  overflow: hidden;
  background: var(--surface);
  border-radius: var(--radius);
}
:host([data-drop]) .stage { outline: 3px dashed var(--accent); outline-offset: -8px; }
canvas { grid-area: 1 / 1; width: 100%; height: 100%; object-fit: contain; }
.after { clip-path: inset(0 0 0 var(--split, 0%)); background: var(--surface); }
/* The slider lies over the picture and is half a thumb wider at both ends, so that its thumb's middle is at the split. */
.compare {
  --thumb: 40px;
  grid-area: 1 / 1;
  justify-self: center;
  z-index: 1;
  appearance: none;
  width: calc(100% + var(--thumb));
  height: 100%;
  margin: 0 calc(var(--thumb) / -2);
  background: none;
  cursor: ew-resize;
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
  inset: 16px;
  font-size: 1.1rem;
  background: none;
  border: 2px dashed var(--muted);
  color: var(--text);
}
.pick small { display: block; color: var(--muted); }
.row { display: flex; flex-wrap: wrap; gap: 8px; }
label { display: block; margin-bottom: 4px; font-weight: 600; }
#prompt { flex: 1; min-width: 0; }
#prompt, button {
  font: inherit;
  padding: 10px 14px;
  border: 1px solid transparent;
  border-radius: calc(var(--radius) * 0.6);
  color: var(--text);
  background: var(--surface);
}
#prompt { border-color: var(--muted); }
button { cursor: pointer; }
:is(.undo, .redo, .download, .replace, .cancel):not(:disabled):hover { border-color: var(--muted); }
button:disabled { cursor: default; opacity: 0.55; }
.edit { background: var(--accent); border-color: var(--accent); color: var(--on-accent); font-weight: 600; }
:is(button, #prompt):focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
progress { width: 100%; margin: 0; accent-color: var(--accent); }
.status { margin: 0; min-height: 1.4em; color: var(--muted); }
:host([data-state='failed']) .status { color: light-dark(#a3161a, #ff9d9d); }
.history { display: flex; gap: 8px; margin: 0; padding: 4px; list-style: none; overflow-x: auto; }
.history:empty { display: none; }
.history button { padding: 2px; display: block; }
.history canvas { display: block; width: 56px; height: 56px; border-radius: 6px; }
.history [aria-current] { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent); }
`;
