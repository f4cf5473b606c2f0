// What the server needs of a logger: pino is one, and so is anything with these three methods.

/** Fields first, then a word, as pino takes them. Prompts and pictures are never among the fields. */
export interface Logger {
  /** Ordinary events. */
  info(fields: Record<string, unknown>, message: string): void;
  /** What somebody should look at. */
  warn(fields: Record<string, unknown>, message: string): void;
  /** Failures of the server itself. */
  error(fields: Record<string, unknown>, message: string): void;
}

/** Says nothing. */
export const SILENT: Logger = { info() {}, warn() {}, error() {} };
