/** /openapi.json, made of the schemas that requests are checked with. */
import { z } from "zod";
import * as schema from "./schema.ts";

interface Operation {
  readonly method: "get" | "post" | "put" | "delete";
  readonly path: string;
  readonly summary: string;
  readonly takes?: z.ZodType;
  /** null: plain text. */
  readonly gives: z.ZodType | null;
  /** Statuses of errors beside 401, 405, 415 and 500. */
  readonly errors: readonly number[];
  /** Answers with server-sent events of this shape when `stream` is true. */
  readonly streams?: z.ZodType;
  /** Needs no key. */
  readonly open?: boolean;
}

const busy = [400, 404, 413, 429, 503];

export const operations: readonly Operation[] = [
  {
    method: "post",
    path: "/v1/chat/completions",
    summary: "Continue a conversation",
    takes: schema.chatRequest,
    gives: schema.chatResponse,
    streams: schema.chatChunk,
    errors: busy,
  },
  {
    method: "post",
    path: "/v1/completions",
    summary: "Continue a text, or score it",
    takes: schema.completionRequest,
    gives: schema.completionResponse,
    streams: schema.completionResponse,
    errors: busy,
  },
  { method: "get", path: "/v1/models", summary: "Base and adapters", gives: schema.modelList, errors: [503] },
  {
    method: "get",
    path: "/v1/models/{name}",
    summary: "One of them",
    gives: schema.modelCard,
    errors: [404, 503],
  },
  {
    method: "get",
    path: "/v1/adapters",
    summary: "Adapter folders, loaded or not",
    gives: schema.adapterList,
    errors: [503],
  },
  {
    method: "get",
    path: "/v1/adapters/{name}",
    summary: "One adapter",
    gives: schema.adapterCard,
    errors: [404, 503],
  },
  {
    method: "put",
    path: "/v1/adapters/{name}",
    summary: "Load an adapter, or load it anew",
    gives: schema.adapterCard,
    errors: [400, 404, 409, 503],
  },
  {
    method: "delete",
    path: "/v1/adapters/{name}",
    summary: "Unload an adapter",
    gives: schema.deletedAdapter,
    errors: [400, 404, 503],
  },
  {
    method: "post",
    path: "/v1/load_lora_adapter",
    summary: "vLLM's name for loading",
    takes: schema.loadRequest,
    gives: null,
    errors: [400, 404, 409, 413, 503],
  },
  {
    method: "post",
    path: "/v1/unload_lora_adapter",
    summary: "vLLM's name for unloading",
    takes: schema.unloadRequest,
    gives: null,
    errors: [400, 404, 413, 503],
  },
  {
    method: "post",
    path: "/tokenize",
    summary: "Text to token ids",
    takes: schema.tokenizeRequest,
    gives: schema.tokenizeResponse,
    errors: [400, 413, 429, 503],
  },
  {
    method: "post",
    path: "/detokenize",
    summary: "Token ids to text",
    takes: schema.detokenizeRequest,
    gives: schema.detokenizeResponse,
    errors: [400, 413, 429, 503],
  },
  {
    method: "post",
    path: "/apply-template",
    summary: "The prompt that messages become",
    takes: schema.templateRequest,
    gives: schema.templateResponse,
    errors: [400, 413, 429, 503],
  },
  {
    method: "get",
    path: "/health",
    summary: "200 when work is taken",
    gives: schema.healthResponse,
    errors: [503],
    open: true,
  },
  { method: "get", path: "/metrics", summary: "Prometheus", gives: null, errors: [] },
];

/** What is known only while the server runs. */
export interface Served {
  /** Names that `model` may have now. */
  readonly models: readonly string[];
  readonly vocabulary: number;
  /** Whether a token stands in front of every text, so that an empty one can be continued. */
  readonly emptyTexts: boolean;
}

let paths: Json | null = null;

export function openApi(served: Served): object {
  paths ??= describeAll();
  return {
    openapi: "3.1.0",
    info: {
      title: "sbora",
      version: "1",
      description: "OpenAI's routes, and adapters that are swapped in place.",
    },
    paths: filled(paths, served),
    components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
  };
}

type Json = Record<string, unknown>;

function describeAll(): Json {
  const all: Record<string, Json> = {};
  for (const operation of operations) {
    const methods = all[operation.path] ?? {};
    all[operation.path] = methods;
    methods[operation.method] = describe(operation);
  }
  return all;
}

/** The document with the names and limits of this server in place of the schemas' marks. */
function filled(part: unknown, served: Served): unknown {
  if (Array.isArray(part)) return part.map((one) => filled(one, served));
  if (typeof part !== "object" || part === null) return part;
  const entries = Object.entries(part).map(([key, value]) => [key, filled(value, served)]);
  const copy = Object.fromEntries(entries) as Json;
  if (copy.maximum === schema.MAX_TOKEN_ID) copy.maximum = served.vocabulary - 1;
  if (copy.description === schema.MODEL_NAMES) copy.enum = served.models;
  if (copy.description === schema.PROMPT_TEXT && !served.emptyTexts) copy.minLength = 1;
  return copy;
}

/** Of models as of adapters: whatever is served has a name like this, or cannot be asked for by path. */
const NAME = { type: "string", pattern: schema.ADAPTER_NAME.source };

function describe({ path, summary, takes, gives, errors, streams, open }: Operation): object {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]!);
  const failed = { description: "Error", content: json(schema.errorResponse, "output") };
  const statuses = [
    ...new Set([...errors, ...(takes ? [415] : []), ...(open ? [] : [401]), 405, 500]),
  ].sort();
  const answer = {
    ...(gives ? json(gives, "output") : { "text/plain": { schema: { type: "string" } } }),
    ...(streams ? { "text/event-stream": { schema: eventOf(streams) } } : {}),
  };
  return {
    summary,
    operationId: summary.replaceAll(/\W+/g, "_").toLowerCase(),
    ...(open ? { security: [] } : { security: [{}, { key: [] }] }),
    parameters: names.map((name) => ({ name, in: "path", required: true, schema: NAME })),
    ...(takes ? { requestBody: { required: true, content: json(takes, "input") } } : {}),
    responses: {
      "200": { description: "Answer", content: answer },
      ...Object.fromEntries(statuses.map((status) => [String(status), failed])),
    },
  };
}

/** Each event of a stream: an object as JSON, an error that came up on the way, or the end. */
function eventOf(chunk: z.ZodType): object {
  const contentSchema = { anyOf: [jsonSchema(chunk, "output"), jsonSchema(schema.errorResponse, "output")] };
  const content = { type: "string", contentMediaType: "application/json", contentSchema };
  return {
    type: "object",
    required: ["data"],
    properties: { data: { anyOf: [{ const: "[DONE]" }, content] } },
  };
}

function json(of: z.ZodType, io: "input" | "output"): object {
  return { "application/json": { schema: jsonSchema(of, io) } };
}

function jsonSchema(of: z.ZodType, io: "input" | "output"): object {
  const { $schema: _, ...rest } = z.toJSONSchema(of, { io });
  return rest;
}
