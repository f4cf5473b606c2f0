// Runs a schema over a body and turns its first complaint into one sentence that names the field.
import type { z } from 'zod';
import { ApiError } from './errors.ts';

/** @throws ApiError 400 naming the first field that is wrong */
export function validate<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = firstIssue(result.error.issues);
  const param = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const [key] = issue.keys;
    const full = [...issue.path, key].map(String).join('.');
    throw new ApiError(400, 'invalid-request', `Unknown parameter ${full}. GET /openapi.json lists those that exist.`, {
      param: full,
    });
  }
  const missing = issue.code === 'invalid_type' && issue.message.endsWith('received undefined');
  const message = missing ? `${param} is missing.` : `${param || 'The body'} is wrong: ${issue.message}.`;
  throw new ApiError(400, 'invalid-request', message, param ? { param } : {});
}

/** Of a union's complaints the ones of the member that came nearest. */
function firstIssue(issues: readonly z.core.$ZodIssue[]): z.core.$ZodIssue {
  const [issue] = issues;
  if (issue!.code !== 'invalid_union' || issue!.errors.length === 0) return issue!;
  const nearest = [...issue!.errors].sort((a, b) => a.length - b.length)[0]!;
  return nearest.length > 0 ? { ...nearest[0]!, path: [...issue!.path, ...nearest[0]!.path] } : issue!;
}
