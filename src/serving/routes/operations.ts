/** GET /health, /metrics, /openapi.json: for machines that watch. */
import type { Ctx, Serving } from "../context.ts";
import { ApiError } from "../errors.ts";
import { openApi } from "../openapi.ts";

/** @throws ApiError 503 while work cannot be taken */
export function requireReady({ engine, loaded, draining }: Serving): void {
  const retry = { "Retry-After": "1" };
  if (draining()) throw new ApiError(503, "The server is shutting down.", "draining", null, retry);
  const state = engine.state();
  if (state === "failed" || state === "closed") {
    throw new ApiError(503, "The engine has stopped.", "engine_stopped");
  }
  if (!loaded()) throw new ApiError(503, "The model is still loading.", "loading", null, retry);
}

export function health(serving: Serving, c: Ctx): Response {
  requireReady(serving);
  return c.json({ status: "ok" });
}

export function metrics(serving: Serving, c: Ctx): Response {
  serving.metrics.set("sbora_requests_outstanding", serving.engine.outstanding());
  return c.body(serving.metrics.text(), 200, { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" });
}

export function openApiDocument({ models, settings, tokenizer }: Serving, c: Ctx): Response {
  const names = models.list().map(({ name }) => name);
  const emptyTexts = tokenizer.bosId !== null;
  return c.json(openApi({ models: names, vocabulary: settings.vocabulary, emptyTexts }));
}
