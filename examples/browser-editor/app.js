// The page around the editor: pictures and words to try, and what this browser's WebGPU offers.
// Everything else is the web component's own doing.
import '../../dist/browser/element.js';

const editor = document.querySelector('kontext-editor');

const PICTURES = {
  'apple-on-red': 'Apple',
  'cat-on-green': 'Cat',
  'panda-on-yellow': 'Panda',
  'empty-blue': 'Nothing',
};
for (const [file, name] of Object.entries(PICTURES)) {
  const image = new Image(64, 64);
  image.src = `../demo-model/inputs/${file}.png`;
  image.alt = name;
  offer('#pictures', image, () => editor.open(image.src));
}

const PROMPTS = ['make the background blue', 'replace the apple with a banana', 'remove the cat', 'invert the colors'];
for (const prompt of PROMPTS) {
  offer('#prompts', prompt, () => {
    if (editor.picture) editor.edit(prompt).catch(() => {});
  });
}

await describeAdapter();

function offer(list, content, action) {
  const button = document.createElement('button');
  button.type = 'button';
  button.append(content);
  button.addEventListener('click', action);
  const item = document.createElement('li');
  item.append(button);
  document.querySelector(list).append(item);
}

async function describeAdapter() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) {
    const notice = document.querySelector('#notice');
    notice.textContent = navigator.gpu
      ? 'This browser has WebGPU but found no graphics adapter for it: switch on graphics acceleration in its settings, or update the graphics driver.'
      : 'This browser has no WebGPU: use a current Chrome, Edge, Firefox or Safari, and open the page over https or from localhost.';
    notice.hidden = false;
    document.querySelector('#browser').hidden = true;
    return;
  }
  const { vendor, architecture, description } = adapter.info;
  const rows = {
    WebGPU: [description, vendor, architecture].filter(Boolean).join(', '),
    'Half precision': adapter.features.has('shader-f16') ? 'yes, the fast path' : 'no: computes in single precision',
    'Largest buffer': `${(adapter.limits.maxBufferSize / 2 ** 30).toFixed(1)} GiB`,
  };
  const list = document.querySelector('#adapter');
  for (const [name, value] of Object.entries(rows)) {
    const [term, text] = [document.createElement('dt'), document.createElement('dd')];
    term.textContent = name;
    text.textContent = value;
    list.append(term, text);
  }
}
