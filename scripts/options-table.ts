// The SDK's options as a Markdown table.
// From the same table that the API checks requests with and the command line makes its help from.
import { type ChoiceOption, LOAD_OPTIONS, REQUEST_OPTIONS, type RequestOption } from '../sdk/src/kontext/options.ts';

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
