// What checks of options have in common: numbers within the table's bounds, values in words, and the one kind of refusal.
import { KontextError } from '../../../runtime/src/errors.ts';
import { type NumberOption, REQUEST_OPTIONS } from './options.ts';

/** Names of the options that are numbers. */
type NumericName = {
  [Name in keyof typeof REQUEST_OPTIONS]: (typeof REQUEST_OPTIONS)[Name] extends NumberOption ? Name : never;
}[keyof typeof REQUEST_OPTIONS];

/** @throws KontextError `invalid-request` naming the option and its bounds */
export function numeric(name: NumericName, given: number | undefined, modelDefault?: number): number {
  const option: NumberOption = REQUEST_OPTIONS[name];
  const value = given ?? modelDefault ?? option.default;
  const whole = option.kind === 'number' || Number.isInteger(value);
  if (typeof value === 'number' && whole && value >= option.min && value <= option.max) return value;
  const what = option.kind === 'integer' ? 'a whole number' : 'a number';
  throw invalid(`${name} is ${show(value)}; it must be ${what} from ${option.min} to ${option.max}.`, { option: name });
}

export function show(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value) : typeof value === 'object' ? 'an object' : String(value);
}

export function invalid(message: string, details: Record<string, unknown> = {}): KontextError {
  return new KontextError('invalid-request', message, details);
}
