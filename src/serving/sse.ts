/**
 * Server-sent events as OpenAI's clients want them: `data: {json}` lines and `data: [DONE]`. A hand-made stream, because
 * helpers answer 200 before the first error can be told, and swallow write errors (field notes §3).
 */
import { type Ctx, keepOpen, type Serving } from "./context.ts";
import { ApiError, errorBody, toApiError } from "./errors.ts";

const HEADERS = {
  "Content-Type": "text/event-stream; charset=utf-8",
  "Cache-Control": "no-cache",
  "X-Accel-Buffering": "no",
};

/** `produce` sends one object after the other; `leave` is called when the client has gone. */
export function eventStream(
  c: Ctx,
  serving: Serving,
  produce: (send: (event: object) => void) => Promise<void>,
  leave: () => void,
): Response {
  keepOpen(c);
  const encoder = new TextEncoder();
  const ended = Promise.withResolvers<void>();
  c.set("ended", ended.promise);
  let gone = false;
  let ping: ReturnType<typeof setInterval> | undefined;
  const left = (): void => {
    if (gone) return;
    gone = true;
    clearInterval(ping);
    leave();
  };
  const run = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    const write = (text: string): void => {
      if (!gone) controller.enqueue(encoder.encode(text));
    };
    ping = setInterval(() => write(": ping\n\n"), serving.settings.pingMs);
    try {
      await produce((event) => write(`data: ${JSON.stringify(event)}\n\n`));
      write("data: [DONE]\n\n");
    } catch (error) {
      const told = toApiError(error);
      if (!(error instanceof ApiError)) serving.log(failure(c, error));
      if (!gone) c.get("record").error = told.code;
      write(`data: ${JSON.stringify(errorBody(told))}\n\n`);
    } finally {
      clearInterval(ping);
      if (gone) c.get("record").aborted = true;
      else controller.close();
      gone = true;
      ended.resolve();
    }
  };
  const body = new ReadableStream<Uint8Array>({ start: (controller) => void run(controller), cancel: left });
  c.req.raw.signal.addEventListener("abort", left);
  return new Response(body, { headers: HEADERS });
}

export function failure(c: Ctx, error: unknown): Record<string, string> {
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { level: "error", id: c.get("requestId"), error: stack };
}
