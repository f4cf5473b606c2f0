// The OpenAPI 3.1 document, made from the schemas that check requests: the two cannot disagree.
import { z } from 'zod';
import { editBody, generationBody, jobBody } from './schema.ts';

type Json = Record<string, unknown>;

/** Paths, bodies and answers of the server. @param version of the package */
export function openApiDocument(version: string): Record<string, unknown> {
  return {
    openapi: '3.1.0',
    info: {
      title: 'kontext-webgpu',
      version,
      description:
        "FLUX.1 Kontext over HTTP, shaped like OpenAI's images API. Options beyond it stand under `kontext`.",
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    security: [{ key: [] }],
    paths: {
      '/v1/images/generations': {
        post: operation(
          'createImage',
          'Make pictures from a prompt',
          body({ 'application/json': schema(generationBody) }),
          {
            200: imagesAnswer,
          },
        ),
      },
      '/v1/images/edits': {
        post: operation(
          'createImageEdit',
          'Change a picture as the prompt says',
          body({ 'application/json': schema(editBody), 'multipart/form-data': formSchema() }),
          { 200: imagesAnswer },
        ),
      },
      '/v1/jobs': {
        post: {
          ...operation(
            'createJob',
            'Accept work and answer at once',
            body({ 'application/json': schema(jobBody), 'multipart/form-data': formSchema() }),
            { 202: answer('The job', ref('Job')) },
          ),
          parameters: [
            {
              name: 'Idempotency-Key',
              in: 'header',
              schema: { type: 'string', maxLength: 200 },
              description: 'The same key and body give the same job.',
            },
          ],
        },
      },
      '/v1/jobs/{id}': {
        parameters: [idParameter],
        get: operation('getJob', 'How far a job is', undefined, { 200: answer('The job', ref('Job')) }),
        delete: operation('deleteJob', 'Cancel a job, or drop it when it has ended', undefined, {
          204: { description: 'Done' },
        }),
      },
      '/v1/jobs/{id}/events': {
        parameters: [idParameter],
        get: operation('jobEvents', 'Follow a job', undefined, {
          200: {
            description: 'Events until the outcome',
            content: { 'text/event-stream': { schema: { type: 'string' } } },
          },
        }),
      },
      '/v1/files/{id}/{name}': {
        parameters: [idParameter, { name: 'name', in: 'path', required: true, schema: { type: 'string' } }],
        get: operation('getFile', 'A finished picture', undefined, {
          200: { description: 'The picture', content: { 'image/*': { schema: { type: 'string', format: 'binary' } } } },
        }),
      },
      '/v1/models': {
        get: operation('listModels', 'Models to ask for', undefined, { 200: answer('Models', { type: 'object' }) }),
      },
      '/healthz': { get: probe('healthz', 'Whether the process answers') },
      '/readyz': { get: probe('readyz', 'Whether it takes work: 503 while it drains or has no worker') },
      '/metrics': { get: probe('metrics', "Prometheus' text format") },
    },
    components: {
      securitySchemes: { key: { type: 'http', scheme: 'bearer' } },
      schemas: { Error: errorSchema, Images: imagesSchema, Job: jobSchema },
    },
  };
}

function schema(type: z.ZodType): Json {
  const { $schema: _, ...json } = z.toJSONSchema(type, { io: 'input' }) as Json;
  return json;
}

/** The edit's fields, with files for pictures, as forms carry them. */
function formSchema(): Json {
  const json = schema(editBody) as { properties: Json; required?: string[] };
  const file = { type: 'string', contentMediaType: 'application/octet-stream' };
  const { images: _, ...properties } = json.properties;
  return {
    ...json,
    properties: { ...properties, image: { oneOf: [file, { type: 'array', items: file, maxItems: 16 }] }, mask: file },
  };
}

function operation(operationId: string, summary: string, requestBody: Json | undefined, responses: Json): Json {
  return {
    operationId,
    summary,
    ...(requestBody && { requestBody }),
    responses: { ...responses, default: errorAnswer },
  };
}

function probe(operationId: string, summary: string): Json {
  return { operationId, summary, security: [], responses: { 200: { description: 'Yes' }, 503: { description: 'No' } } };
}

function body(content: Record<string, Json>): Json {
  return {
    required: true,
    content: Object.fromEntries(Object.entries(content).map(([type, json]) => [type, { schema: json }])),
  };
}

function answer(description: string, json: Json): Json {
  return { description, content: { 'application/json': { schema: json } } };
}

function ref(name: string): Json {
  return { $ref: `#/components/schemas/${name}` };
}

const idParameter = { name: 'id', in: 'path', required: true, schema: { type: 'string', format: 'uuid' } };
const errorAnswer = answer('What went wrong', ref('Error'));
const imagesAnswer = {
  description: 'The pictures; with stream: true, events',
  content: {
    'application/json': { schema: ref('Images') },
    'text/event-stream': { schema: { type: 'string' } },
  },
};
const string = { type: 'string' };
const integer = { type: 'integer' };
const errorSchema = {
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['message', 'type', 'param', 'code'],
      properties: { message: string, type: string, param: { type: ['string', 'null'] }, code: string },
    },
  },
};
const usageSchema = {
  type: 'object',
  properties: { input_tokens: integer, output_tokens: integer, total_tokens: integer },
};
const imagesSchema = {
  type: 'object',
  required: ['created', 'data'],
  properties: {
    created: integer,
    data: { type: 'array', items: { type: 'object', properties: { b64_json: string, url: string } } },
    size: string,
    quality: string,
    output_format: string,
    background: string,
    usage: usageSchema,
    kontext: { type: 'object', description: 'seed, options as used, truncated, timings' },
  },
};
const jobSchema = {
  type: 'object',
  required: ['id', 'object', 'status', 'progress', 'model', 'kind', 'created'],
  properties: {
    id: { type: 'string', format: 'uuid' },
    object: { const: 'job' },
    status: { enum: ['queued', 'running', 'done', 'failed', 'cancelled'] },
    progress: { type: 'number', minimum: 0, maximum: 1 },
    model: string,
    kind: { enum: ['edit', 'generate'] },
    created: integer,
    data: { type: 'array', items: { type: 'object', properties: { url: string, format: string } } },
    usage: usageSchema,
    error: { type: 'object', properties: { code: string, message: string } },
    kontext: { type: 'object' },
  },
};
