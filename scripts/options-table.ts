// The SDK's options as a Markdown table.
// From the same table that the API checks requests with and the command line makes its help from.
import { flagOf } from '../sdk/src/cli/request-flags.ts';
import { type ChoiceOption, LOAD_OPTIONS, REQUEST_OPTIONS, type RequestOption } from '../sdk/src/kontext/options.ts';
import { NOT_UNDER_KONTEXT } from '../sdk/src/server/http/schema.ts';

export function optionsTable(): string {
  const requests = Object.entries<RequestOption>(REQUEST_OPTIONS).map(
    ([name, option]) => `| \`${name}\` | ${option.default ?? 'none'} | ${valuesOf(option)} | ${option.help} |`,
  );
  const loads = Object.entries<ChoiceOption>(LOAD_OPTIONS).map(([name, { default: standard, choices, help }]) => {
    const values = choices.map((choice) => `\`${choice}\``).join(', ');
    return `| \`${name}\` | \`${standard}\` | ${values} | ${help} |`;
  });
  return [
    '| of a request | default | values | |',
    '| --- | --- | --- | --- |',
    ...requests,
    '',
    '| of `Kontext.load` | default | values | |',
    '| --- | --- | --- | --- |',
    ...loads,
    '',
  ].join('\n');
}

/** Of an editor: its attributes, and what is drawn in it. All others are its property `request`. */
const IN_ELEMENT: Readonly<Record<string, string>> = {
  steps: 'attribute, `request`',
  seed: 'attribute, `request`',
  guidance: 'attribute, `request`',
  images: '`request`; the first is shown',
  mask: 'drawn, `request`',
  maskFeather: 'slider, `request`',
};

/** Where each option of a request is, beside `edit()` and `generate()` in Node, in the page and in a worker, which have all. */
export function placesTable(): string {
  const rows = Object.entries<RequestOption>(REQUEST_OPTIONS).map(([name, option]) => {
    const own = NOT_UNDER_KONTEXT[name];
    const server = own === undefined ? `\`kontext.${name}\`` : own.includes(' ') ? own : `\`${own}\``;
    return `| \`${name}\` | \`--${flagOf(name, option)}\` | ${server} | ${IN_ELEMENT[name] ?? '`request`'} |`;
  });
  const words = [
    ['`adapters`', '`--lora`', '`kontext.adapters`', '`adapters`, `request`'],
    ['`choose`', '`--choose`', 'only in the process; the built-in choice', '`request`'],
    ['`preview`', 'not there: it tells progress', '`partial_images`', 'attribute, `request`'],
    ["`output: 'latents'`", '`--save-latents`', 'only in the process', 'not there: it shows pictures'],
  ];
  return [
    '| option | `kontext edit` | `kontext serve` | `<kontext-editor>` |',
    '| --- | --- | --- | --- |',
    ...rows,
    ...words.map((cells) => `| ${cells.join(' | ')} |`),
    '',
  ].join('\n');
}

function valuesOf(option: RequestOption): string {
  switch (option.kind) {
    case 'integer':
    case 'number':
      return `${option.min} to ${option.max}`;
    case 'choice':
      return option.choices.map((choice) => `\`${choice}\``).join(', ');
    case 'switch':
      return 'true, false';
    default:
      return `${option.kind}${option.list ? 's' : ''}${option.only === 'edit' ? ', of edits' : ''}`;
  }
}
