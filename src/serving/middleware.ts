/** What happens around every route: request ids, logs, limits, keys. */
import { timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import { messageOf } from "../errors.ts";
import type { Ctx, Env, Serving } from "./context.ts";
import { ApiError, badRequest } from "./errors.ts";

/** nginx's status of requests whose client did not wait for the answer; never sent, there is nobody to read it. */
export const CLIENT_CLOSED = 499;
const REQUEST_ID = /^[\w.:-]{1,64}$/;

/** Gives the request an id and writes one line when its answer has ended, streamed ones included. */
export function logged(serving: Serving): MiddlewareHandler<Env> {
  return async (c, next) => {
    const start = performance.now();
    const given = c.req.header("x-request-id");
    const id = given && REQUEST_ID.test(given) ? given : crypto.randomUUID();
    c.set("requestId", id);
    c.set("record", {});
    await next();
    c.res.headers.set("x-request-id", id);
    const finish = (): void => {
      const status = c.get("record").aborted ? CLIENT_CLOSED : c.res.status;
      const ms = Math.round(performance.now() - start);
      const matched = routePath(c, -1);
      const route = matched === "/*" ? "other" : matched;
      serving.metrics.count("sbora_requests_total", { route, status: String(status) });
      serving.log({ id, method: c.req.method, path: c.req.path, status, ms, ...c.get("record") });
    };
    const ended = c.get("ended");
    if (ended) void ended.then(finish);
    else finish();
  };
}

/**
 * Lets JSON through that says so. Browsers send other types, and none at all, across origins without asking first: any
 * page its user looks at could drive a server without keys. @throws ApiError 415
 */
export const jsonOnly: MiddlewareHandler<Env> = async (c, next) => {
  const given = c.req.header("content-type") ?? "";
  if (!/^\s*application\/json\s*(;|$)/i.test(given)) {
    const found = given === "" ? "missing" : `"${given.slice(0, 128)}"`;
    const message = `The Content-Type is ${found}; send the body as application/json.`;
    throw new ApiError(415, message, "unsupported_media_type");
  }
  await next();
};

/** Refuses bodies that say, or turn out, to be too large. */
export function limited({ settings }: Serving): MiddlewareHandler<Env> {
  return async (c, next) => {
    const { maxBodyBytes } = settings;
    const refuse = (): never => {
      throw new ApiError(413, `The body is larger than ${maxBodyBytes} bytes.`, "body_too_large");
    };
    const said = Number(c.req.header("content-length") ?? 0);
    if (said > maxBodyBytes) refuse();
    if (c.req.raw.body !== null) {
      // Hono keeps it, so that the route reads the same bytes.
      const body = await c.req.arrayBuffer().catch((error: unknown) => {
        if (c.req.raw.signal.aborted) throw badRequest("The body ended too early.", null, "body_incomplete");
        // Bun stops reading at a limit of its own, above ours.
        if (messageOf(error).includes("maxRequestBodySize")) return refuse();
        throw error;
      });
      if (body.byteLength > maxBodyBytes) refuse();
    }
    await next();
  };
}

/** @throws ApiError 401 unless the request carries one of the keys; nobody is asked where there are none */
export function keyed(keysOf: () => readonly string[]): MiddlewareHandler<Env> {
  return async (c, next) => {
    const keys = keysOf();
    if (keys.length > 0 && !carriesKey(c, keys)) {
      throw new ApiError(
        401,
        "The API key is missing or wrong; send it as `Authorization: Bearer KEY`.",
        "invalid_api_key",
        null,
        { "WWW-Authenticate": "Bearer" },
      );
    }
    await next();
  };
}

function carriesKey(c: Ctx, keys: readonly string[]): boolean {
  const given = /^Bearer (.+)$/i.exec(c.req.header("authorization") ?? "")?.[1] ?? "";
  // Every key is compared, by digests of one length: neither key nor length shows in the time it takes.
  return keys.reduce((found, key) => timingSafeEqual(digest(key), digest(given)) || found, false);
}

function digest(text: string): Uint8Array {
  return new Bun.CryptoHasher("sha256").update(text).digest();
}
