// The SDK's options as a Markdown table.
// From the same table that the API checks requests with and the command line makes its help from.
import { type ChoiceOption, LOAD_OPTIONS, type NumberOption, REQUEST_OPTIONS } from '../sdk/src/kontext/options.ts';

export function optionsTable(): string {
  const requests = Object.entries<NumberOption>(REQUEST_OPTIONS).map(
    ([name, { default: standard, min, max, help }]) =>
      `| \`${name}\` | ${standard ?? 'none'} | ${min} to ${max} | ${help} |`,
  );
  const loads = Object.entries<ChoiceOption>(LOAD_OPTIONS).map(([name, { default: standard, choices, help }]) => {
    const values = choices.map((choice) => `\`${choice}\``).join(', ');
    return `| \`${name}\` | \`${standard}\` | ${values} | ${help} |`;
  });
  return [
    '| of a request | default | range | |',
    '| --- | --- | --- | --- |',
    ...requests,
    '',
    '| of `Kontext.load` | default | values | |',
    '| --- | --- | --- | --- |',
    ...loads,
    '',
  ].join('\n');
}
