/** The server as it runs: the engine in a Worker, requests over a socket, clients that leave, an orderly end. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { workerPort } from "./client.ts";
import type { LogRecord } from "./context.ts";
import { eventsIn } from "./page/events.ts";
import type { ChatChunk, ChatResponse, CompletionResponse } from "./schema.ts";
import { type RunningServer, startServer } from "./server.ts";
import { tinyOptions } from "./testing.ts";
import { JSON_TYPE, LETTERS, type TinyFolders, testSettings, tinyFolders } from "./testing-app.ts";

setDefaultTimeout(60_000);

let folders: TinyFolders;
let server: RunningServer;
const logs: LogRecord[] = [];

function start(drainMs = 5000): RunningServer {
  return startServer(
    {
      engine: { ...tinyOptions, model: folders.model },
      name: null,
      adapters: folders.adapters,
      host: "127.0.0.1",
      port: 0,
      queue: 200,
      drainMs,
      settings: { ...testSettings, pingMs: 20 },
      log: (record) => logs.push(record),
    },
    workerPort(),
  );
}

beforeAll(async () => {
  folders = await tinyFolders();
  server = start();
  await server.ready;
});
afterAll(async () => {
  await server.drain();
  expect(await server.ended).toBe(0);
  folders.remove();
});

const post = (path: string, body: object, init: RequestInit = {}, url = server.url): Promise<Response> =>
  fetch(new URL(path, url), { method: "POST", headers: JSON_TYPE, body: JSON.stringify(body), ...init });
const text = { model: "tiny", prompt: "once upon", temperature: 0, max_tokens: 24, logit_bias: LETTERS };
const endless = { ...text, max_tokens: 480, ignore_eos: true, stream: true };

async function idle(): Promise<void> {
  for (let i = 0; i < 200 && server.serving.engine.outstanding() > 0; i++) await Bun.sleep(10);
  // one more answer, so that what the engine says of itself is fresh
  await (await post("/v1/completions", { ...text, max_tokens: 1 })).json();
}

describe("over a socket", () => {
  test("16 at once get what each gets alone, base and adapters mixed", async () => {
    const models = ["tiny", "fa", "lora"];
    const wishes = Array.from({ length: 16 }, (_, i) => ({
      ...text,
      model: models[i % 3]!,
      prompt: `${"abc".repeat(i)}!`,
      temperature: i % 2,
      seed: i,
    }));
    const answer = async (wish: object): Promise<string> => {
      const response = await post("/v1/completions", wish);
      expect(response.status).toBe(200);
      return ((await response.json()) as CompletionResponse).choices[0]!.text;
    };
    const together = await Promise.all(wishes.map(answer));
    const alone: string[] = [];
    for (const wish of wishes) alone.push(await answer(wish));
    expect(together).toEqual(alone);
    expect(new Set(alone).size).toBeGreaterThan(8);
    expect(server.serving.engine.stats()!.swaps).toBeGreaterThan(2);
  });

  test("a stream arrives piece by piece", async () => {
    const messages = [{ role: "user", content: "hi" }];
    const wish = { model: "tiny", messages, max_tokens: 30, temperature: 0, logit_bias: LETTERS };
    const response = await post("/v1/chat/completions", { ...wish, stream: true });
    expect(response.headers.get("x-accel-buffering")).toBe("no");
    let streamed = "";
    for await (const chunk of eventsIn<ChatChunk>(response.body!)) {
      streamed += chunk.choices[0]?.delta.content ?? "";
    }
    const whole = (await (await post("/v1/chat/completions", wish)).json()) as ChatResponse;
    expect(streamed).toBe(whole.choices[0]!.message.content);
  });

  test("a body without a length that grows too large is refused", async () => {
    for (const size of [80_000, 400_000]) {
      const body = new ReadableStream<Uint8Array>({
        start(controller) {
          for (let at = 0; at < size; at += 1000) controller.enqueue(new Uint8Array(1000).fill(32));
          controller.close();
        },
      });
      const response = await fetch(new URL("/tokenize", server.url), { method: "POST", body });
      expect(response.status).toBe(413);
    }
  });

  test("a body that stops half way is the client's fault, not the server's", async () => {
    const head = "POST /tokenize HTTP/1.1\r\nHost: x\r\nX-Request-Id: half\r\nContent-Length: 100\r\n\r\n";
    const port = Number(new URL(server.url).port);
    const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
    socket.write(`${head}{`);
    socket.flush();
    await Bun.sleep(50);
    socket.terminate();
    const mine = (): LogRecord[] => logs.filter(({ id }) => id === "half");
    for (let i = 0; i < 100 && mine().length === 0; i++) await Bun.sleep(10);
    await Bun.sleep(10);
    expect(mine()).toMatchObject([{ status: 499, aborted: true }]);
  });

  test("the page and its script come from here alone", async () => {
    const page = await fetch(server.url);
    const html = await page.text();
    expect(html).not.toMatch(/https?:\/\//);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    const script = await fetch(new URL("/page.js", server.url));
    expect(script.headers.get("content-type")).toStartWith("text/javascript");
    expect(await script.text()).toContain("/v1/chat/completions");
  });
});

describe("clients that leave", () => {
  test("100 streams that are cut leave no busy slot and no page", async () => {
    await idle();
    const { cachedPages } = server.serving.engine.stats()!;
    const cut = async (i: number): Promise<void> => {
      const leave = new AbortController();
      const prompt = `${i} of a hundred`;
      const response = await post("/v1/completions", { ...endless, prompt }, { signal: leave.signal });
      expect(response.status).toBe(200);
      const reader = response.body!.getReader();
      // some leave before the first token, some in the middle
      for (let reads = 0; reads < i % 4; reads++) await reader.read();
      leave.abort();
      await reader.read().catch(() => {});
    };
    await Promise.all(Array.from({ length: 100 }, (_, i) => cut(i)));
    await idle();
    const stats = server.serving.engine.stats()!;
    expect(stats).toMatchObject({ running: 0, waiting: 0 });
    expect(stats.pages - stats.freePages).toBe(stats.cachedPages);
    expect(stats.cachedPages).toBeGreaterThanOrEqual(cachedPages);
    const { metrics } = server.serving;
    // far from the 48,000 tokens that all of them would have had
    expect(metrics.value("sbora_generated_tokens_total")).toBeLessThan(15_000);
    expect(logs.filter((record) => record.aborted === true).length).toBeGreaterThan(50);
    const closed = metrics.value("sbora_requests_total", { route: "/v1/completions", status: "499" });
    expect(closed).toBeGreaterThan(50);
  });

  test("one that does not stream is noticed too", async () => {
    await idle();
    const before = server.serving.metrics.value("sbora_generated_tokens_total");
    const leave = new AbortController();
    const wish = { ...endless, stream: false, n: 8, temperature: 1 };
    const counted = (status: string): number =>
      server.serving.metrics.value("sbora_requests_total", { route: "/v1/completions", status });
    const [closed, failed] = [counted("499"), counted("503")];
    const answer = post("/v1/completions", wish, { signal: leave.signal });
    while (server.serving.engine.outstanding() === 0) await Bun.sleep(1);
    await Bun.sleep(20);
    leave.abort();
    await expect(answer).rejects.toThrow();
    await idle();
    expect(server.serving.metrics.value("sbora_generated_tokens_total") - before).toBeLessThan(8 * 480);
    expect(server.serving.engine.stats()).toMatchObject({ running: 0, waiting: 0 });
    // the client's doing, not ours
    expect([counted("499"), counted("503")]).toEqual([closed + 1, failed]);
    const line = logs.findLast((record) => record.aborted === true)!;
    expect(line).toMatchObject({ status: 499, path: "/v1/completions" });
    expect(line.error).toBeUndefined();
  });
});

describe("the end", () => {
  test("lets running requests finish and refuses new ones", async () => {
    const own = start();
    await own.ready;
    const running = post("/v1/completions", { ...text, max_tokens: 300, ignore_eos: true }, {}, own.url);
    while (own.serving.engine.outstanding() === 0) await Bun.sleep(1);
    const drained = own.drain();
    const late = await post("/v1/completions", text, {}, own.url);
    expect({ status: late.status, retry: late.headers.get("retry-after") }).toEqual({
      status: 503,
      retry: "1",
    });
    const answer = (await (await running).json()) as CompletionResponse;
    expect(answer.usage!.completion_tokens).toBe(300);
    await drained;
    expect(await own.ended).toBe(0);
    await expect(fetch(own.url)).rejects.toThrow();
  });

  test("cuts what is still running at the deadline, and says so", async () => {
    const own = start(30);
    await own.ready;
    const wish = { ...endless, n: 16, temperature: 1, max_tokens: 490 };
    const response = await post("/v1/completions", wish, {}, own.url);
    const drained = own.drain();
    const seen: { error?: { code: string } }[] = [];
    for await (const event of eventsIn<{ error?: { code: string } }>(response.body!)) seen.push(event);
    expect(seen.at(-1)!.error!.code).toBe("shutting_down");
    await drained;
    expect(await own.ended).toBe(0);
  });

  test("waits for texts that are tokenized, too", async () => {
    const own = start();
    await own.ready;
    const { longTexts } = own.serving;
    const { run } = longTexts;
    const begun = Promise.withResolvers<void>();
    longTexts.run = async (job, signal) => {
      begun.resolve();
      await Bun.sleep(800);
      return run(job, signal);
    };
    const prompt = Array.from({ length: 20 }, () => "a".repeat(250));
    const running = post("/v1/completions", { ...text, prompt }, {}, own.url);
    await begun.promise;
    await own.drain();
    expect((await running).status).toBe(200);
  });

  test("comes at once when it is asked for twice", async () => {
    const own = start(60_000);
    await own.ready;
    const wish = { ...endless, n: 16, temperature: 1, max_tokens: 490 };
    const response = await post("/v1/completions", wish, {}, own.url);
    const drained = own.drain();
    await own.drain();
    const seen: { error?: { code: string } }[] = [];
    for await (const event of eventsIn<{ error?: { code: string } }>(response.body!)) seen.push(event);
    expect(seen.at(-1)!.error!.code).toBe("shutting_down");
    await drained;
    expect(await own.ended).toBe(0);
  });

  test("comes while the model is loading, too", async () => {
    const own = start();
    await own.drain();
    expect(await own.ended).toBe(0);
  });
});
