// The markup of <kontext-editor>. Texts come from the strings object, by the attributes data-text and data-name.
// Its look is in style.ts.

const icon = (path: string): string =>
  `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>`;

const tool = (name: string, path: string, more = ''): string =>
  `<button part="button" class="${name} tool${more}" type="button" data-title="${name}" disabled>${icon(path)}<span data-text="${name}"></span></button>`;

export const MARKUP = `
<div class="editor" part="editor">
  <div class="sizer" aria-hidden="true"><div></div></div>
  <div part="stage" class="stage">
    <div class="frame">
      <canvas part="picture before" class="before" role="img" data-name="before" hidden></canvas>
      <canvas part="picture after" class="after" role="img" data-name="picture" hidden></canvas>
      <input class="compare" part="compare" type="range" min="0" max="100" value="0" data-name="compare" hidden>
      <div class="divider"></div>
    </div>
    <button part="pick" class="pick" type="button"><span data-text="pick"></span><small data-text="pickHint"></small></button>
  </div>
  <div class="panel" part="panel">
    <form part="form">
      <label for="prompt" data-text="prompt"></label>
      <div class="row">
        <textarea part="prompt" id="prompt" rows="1" autocomplete="off" enterkeyhint="go" required></textarea>
        <button part="button edit" class="edit" type="submit" data-text="edit" disabled></button>
        <button part="button cancel" class="cancel" type="button" data-text="cancel" hidden></button>
      </div>
    </form>
    <div class="news">
      <progress part="progress" max="1" data-name="progress" hidden></progress>
      <p part="status" class="status" role="status"></p>
      <p part="detail" class="detail"></p>
    </div>
    <div part="toolbar" class="tools" role="group" data-name="toolbar">
      ${tool('undo', 'M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3', ' flip')}
      ${tool('redo', 'm15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h3', ' flip')}
      ${tool('mask', 'M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M9 12a3 3 0 1 0 6 0 3 3 0 1 0-6 0', ' area')}
      ${tool('download', 'M12 3v12m0 0 5-5m-5 5-5-5M4 20h16')}
      ${tool('replace', 'M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01')}
    </div>
    <ol part="history" class="history" data-name="history" tabindex="-1"></ol>
  </div>
  <input class="file" type="file" accept="image/*" data-name="file" tabindex="-1" hidden>
</div>
`;
