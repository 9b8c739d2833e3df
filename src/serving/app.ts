/** Every route on one screen. */
import { Hono } from "hono";
import { cors } from "hono/cors";
import type { Ctx, Env, Serving } from "./context.ts";
import { ApiError, errorResponse, toApiError } from "./errors.ts";
import { jsonOnly, keyed, limited, logged } from "./middleware.ts";
import { operations } from "./openapi.ts";
import { chat } from "./routes/chat.ts";
import { completions } from "./routes/completions.ts";
import {
  deleteAdapter,
  listAdapters,
  listModels,
  putAdapter,
  showAdapter,
  showModel,
  vllmLoad,
  vllmUnload,
} from "./routes/models.ts";
import { health, metrics, openApiDocument, requireReady } from "./routes/operations.ts";
import { page } from "./routes/page.ts";
import { applyTemplate, detokenize, tokenize } from "./routes/text.ts";
import { failure } from "./sse.ts";

type Route = (serving: Serving, c: Ctx) => Response | Promise<Response>;

export function createApp(serving: Serving): Hono<Env> {
  const app = new Hono<Env>();
  const { apiKeys, adminKeys, cors: origins } = serving.settings;
  const use = (route: Route) => (c: Ctx) => route(serving, c);
  /** Needs a loaded model that is not being shut down. */
  const ready = (route: Route) => async (c: Ctx) => {
    requireReady(serving);
    serving.admitted.add(c);
    try {
      return await route(serving, c);
    } finally {
      serving.admitted.delete(c);
    }
  };
  const key = keyed(() => apiKeys);
  const admin = keyed(() => (adminKeys.length > 0 ? adminKeys : apiKeys));

  app.use(logged(serving));
  if (origins.length > 0) app.use(cors({ origin: origins.includes("*") ? "*" : [...origins] }));
  app.use(limited(serving));

  app.post("/v1/chat/completions", key, jsonOnly, ready(chat));
  app.post("/v1/completions", key, jsonOnly, ready(completions));
  app.get("/v1/models", key, ready(listModels));
  app.get("/v1/models/:name", key, ready(showModel));

  app.get("/v1/adapters", key, ready(listAdapters));
  app.get("/v1/adapters/:name", key, ready(showAdapter));
  app.put("/v1/adapters/:name", admin, ready(putAdapter));
  app.delete("/v1/adapters/:name", admin, ready(deleteAdapter));
  app.post("/v1/load_lora_adapter", admin, jsonOnly, ready(vllmLoad));
  app.post("/v1/unload_lora_adapter", admin, jsonOnly, ready(vllmUnload));

  app.post("/tokenize", key, jsonOnly, ready(tokenize));
  app.post("/detokenize", key, jsonOnly, ready(detokenize));
  app.post("/apply-template", key, jsonOnly, ready(applyTemplate));

  app.get("/health", use(health));
  app.get("/metrics", key, use(metrics));
  app.get("/openapi.json", use(openApiDocument));
  app.get("/", use(page));
  app.get("/page.js", use(page));

  app.notFound((c) => errorResponse(missing(c)));
  app.onError((error, c) => {
    const told = toApiError(error);
    if (told.status === 500) serving.log(failure(c, error));
    const record = c.get("record");
    if (c.req.raw.signal.aborted) record.aborted = true;
    else record.error = told.code;
    if (told.detail !== null) record.detail = told.detail;
    return errorResponse(told);
  });
  return app;
}

function missing(c: Ctx): ApiError {
  const { path, method } = c.req;
  const known = operations.filter((o) => new RegExp(`^${o.path.replace(/\{\w+\}/g, "[^/]+")}$`).test(path));
  if (known.length > 0) {
    const allow = known.map((o) => o.method.toUpperCase()).join(", ");
    const message = `${method} is not allowed here; expected ${allow}.`;
    return new ApiError(405, message, "method_not_allowed", null, { Allow: allow });
  }
  return new ApiError(404, `There is no route ${method} ${path}; see /openapi.json.`, "route_not_found");
}
