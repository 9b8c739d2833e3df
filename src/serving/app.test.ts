/** The routes on the tiny model, without a socket. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ErrorBody } from "./errors.ts";
import type { ChatChunk, ChatResponse, CompletionResponse } from "./schema.ts";
import * as schema from "./schema.ts";
import {
  byteToken,
  events,
  JSON_TYPE,
  LETTERS,
  type TinyApp,
  type TinyFolders,
  tinyApp,
  tinyFolders,
} from "./testing-app.ts";

setDefaultTimeout(60_000);

let folders: TinyFolders;
let app: TinyApp;
beforeAll(async () => {
  folders = await tinyFolders();
  app = tinyApp(folders);
  await app.ready;
});
afterAll(async () => {
  await app.close();
  folders.remove();
});

const json = async <T>(response: Response): Promise<T> => {
  expect({ status: response.status, type: response.headers.get("content-type") }).toMatchObject({
    status: 200,
  });
  return (await response.json()) as T;
};

const hello = {
  model: "tiny",
  messages: [{ role: "user", content: "Hello there" }],
  temperature: 0,
  max_tokens: 24,
  logit_bias: LETTERS,
};
const text = { model: "tiny", prompt: "once upon", temperature: 0, max_tokens: 24, logit_bias: LETTERS };

describe("chat", () => {
  test("answers, and streams the same answer with its usage", async () => {
    const whole = await json<ChatResponse>(await app.ask("/v1/chat/completions", hello));
    expect(whole).toMatchObject({ object: "chat.completion", model: "tiny" });
    const [choice] = whole.choices;
    expect(choice).toMatchObject({ index: 0, finish_reason: "length", logprobs: null });
    expect(choice!.message.content).toMatch(/^[a-z]{24}$/);
    expect(whole.usage).toMatchObject({
      completion_tokens: 24,
      total_tokens: whole.usage.prompt_tokens + 24,
    });
    const response = await app.ask("/v1/chat/completions", {
      ...hello,
      stream: true,
      stream_options: { include_usage: true },
    });
    expect(response.headers.get("content-type")).toStartWith("text/event-stream");
    const chunks = await events<ChatChunk>(response);
    expect(chunks[0]!.choices[0]!.delta).toEqual({ role: "assistant", content: "" });
    const streamed = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    expect(streamed).toBe(choice!.message.content);
    const { cached_tokens: _, ...counts } = { ...chunks.at(-1)!.usage!, cached_tokens: 0 };
    expect(counts).toMatchObject({ completion_tokens: 24, prompt_tokens: whole.usage.prompt_tokens });
    expect(chunks.at(-2)!.choices[0]!.finish_reason).toBe("length");
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
  });

  test("asks for what messages say: parts, roles, the longest answer that fits", async () => {
    const parts = [
      { role: "developer", content: "Be brief" },
      {
        role: "user",
        content: [
          { type: "text", text: "Hello" },
          { type: "text", text: "there" },
        ],
      },
    ];
    const { prompt } = await json<{ prompt: string }>(await app.ask("/apply-template", { messages: parts }));
    expect(prompt).toBe(
      "<|start|>system:Be brief<|end|><|start|>user:Hello\nthere<|end|><|start|>assistant:",
    );
    const { max_tokens: _, ...open } = hello;
    const { usage } = await json<ChatResponse>(await app.ask("/v1/chat/completions", open));
    expect(usage.total_tokens).toBe(512);
  });

  test("n answers with a seed: each its own, the same again, the same in a stream", async () => {
    const wish = { ...hello, temperature: 1, n: 3, seed: 7 };
    const answers = async (): Promise<string[]> => {
      const { choices } = await json<ChatResponse>(await app.ask("/v1/chat/completions", wish));
      return choices.map(({ message }) => message.content);
    };
    const first = await answers();
    expect(new Set(first).size).toBe(3);
    expect(await answers()).toEqual(first);
    const chunks = await events<ChatChunk>(await app.ask("/v1/chat/completions", { ...wish, stream: true }));
    const streamed = ["", "", ""];
    for (const { choices } of chunks) streamed[choices[0]!.index]! += choices[0]!.delta.content ?? "";
    expect(streamed).toEqual(first);
    const other = await json<ChatResponse>(await app.ask("/v1/chat/completions", { ...wish, seed: 8 }));
    expect(other.choices.map(({ message }) => message.content)).not.toEqual(first);
  });

  test("reports log-probabilities with bytes", async () => {
    const wish = { ...hello, logit_bias: null, logprobs: true, top_logprobs: 2, max_tokens: 4 };
    const { choices } = await json<ChatResponse>(await app.ask("/v1/chat/completions", wish));
    const { content } = choices[0]!.logprobs!;
    expect(content).toHaveLength(4);
    for (const { token, logprob, bytes, top_logprobs } of content) {
      expect(top_logprobs).toHaveLength(2);
      expect(top_logprobs[0]).toEqual({ token, logprob, bytes });
      expect(logprob).toBeLessThan(0);
      expect(bytes!.every((b) => b >= 0 && b < 256)).toBe(true);
    }
  });
});

describe("stop strings", () => {
  test("spread over tokens end the answer before them, streamed or not", async () => {
    const whole = await json<CompletionResponse>(await app.ask("/v1/completions", text));
    const said = whole.choices[0]!.text;
    for (const [from, length] of [
      [5, 3],
      [8, 2],
      [1, 9],
      [21, 3],
    ] as const) {
      const stop = said.slice(from, from + length);
      const expected = said.slice(0, said.indexOf(stop));
      const wish = { ...text, stop: ["no such text", stop] };
      const stopped = await json<CompletionResponse>(await app.ask("/v1/completions", wish));
      expect(stopped.choices[0]).toMatchObject({ text: expected, finish_reason: "stop" });
      const chunks = await events<CompletionResponse>(
        await app.ask("/v1/completions", { ...wish, stream: true }),
      );
      expect(chunks.map((chunk) => chunk.choices[0]!.text).join("")).toBe(expected);
      expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe("stop");
    }
    // what looked like the beginning of one is shown after all
    const almost = await json<CompletionResponse>(
      await app.ask("/v1/completions", { ...text, stop: `${said.slice(-4)}!` }),
    );
    expect(almost.choices[0]).toMatchObject({ text: said, finish_reason: "length" });
    expect(app.serving.engine.outstanding()).toBe(0);
  });

  test("an end token is no text, unless it is to be ignored", async () => {
    const end = { ...text, logit_bias: { 0: 100 } };
    const ended = await json<CompletionResponse>(await app.ask("/v1/completions", end));
    expect(ended.choices[0]).toMatchObject({ text: "", finish_reason: "stop" });
    expect(ended.usage!.completion_tokens).toBe(1);
    const on = await json<CompletionResponse>(await app.ask("/v1/completions", { ...end, ignore_eos: true }));
    expect(on.choices[0]!.finish_reason).toBe("length");
    const own = { ...text, logit_bias: { [byteToken(120)]: 100 }, stop_token_ids: [byteToken(120)] };
    const stopped = await json<CompletionResponse>(await app.ask("/v1/completions", own));
    expect(stopped.choices[0]).toMatchObject({ text: "", finish_reason: "stop" });
  });
});

describe("completions", () => {
  test("score a given text: echo, logprobs, no new tokens", async () => {
    const ids = [..."the moon"].map((ch) => byteToken(ch.charCodeAt(0)));
    const wish = { model: "tiny", prompt: ids, echo: true, logprobs: 1, max_tokens: 0 };
    const { choices, usage } = await json<CompletionResponse>(await app.ask("/v1/completions", wish));
    const { text: said, logprobs, finish_reason } = choices[0]!;
    expect({ said, finish_reason }).toEqual({ said: "the moon", finish_reason: "length" });
    expect(logprobs!.tokens).toEqual([..."the moon"]);
    expect(logprobs!.text_offset).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(logprobs!.token_logprobs[0]).toBeNull();
    expect(logprobs!.top_logprobs[0]).toBeNull();
    logprobs!.token_logprobs.slice(1).forEach((value, i) => {
      const top = logprobs!.top_logprobs[i + 1]!;
      expect(top[logprobs!.tokens[i + 1]!]).toBe(value!);
      expect(Math.max(...Object.values(top))).toBeGreaterThanOrEqual(value!);
    });
    expect(usage).toMatchObject({ prompt_tokens: 8, completion_tokens: 0 });
    // lm-eval asks for one token more and drops it
    const one = await json<CompletionResponse>(
      await app.ask("/v1/completions", { ...wish, max_tokens: 1, temperature: 0 }),
    );
    expect(one.choices[0]!.logprobs!.token_logprobs.slice(0, -1)).toEqual(logprobs!.token_logprobs);
    const [chunk] = await events<CompletionResponse>(
      await app.ask("/v1/completions", { ...wish, stream: true }),
    );
    expect(chunk!.choices[0]).toMatchObject({ text: "the moon", logprobs: logprobs! });
  });

  test("offsets lead into the text that is told, where a BOS stands in front and special tokens are left out", async () => {
    const model = join(folders.root, "bos");
    cpSync(folders.model, model, { recursive: true });
    const named = { add_bos_token: true, bos_token: "<|start|>", eos_token: "<|end|>" };
    writeFileSync(join(model, "tokenizer_config.json"), JSON.stringify(named));
    const own = tinyApp({ ...folders, model });
    await own.ready;
    // the end token first, then letters
    const answer = { max_tokens: 4, ignore_eos: true, temperature: 0, logit_bias: { ...LETTERS, 0: 61 } };
    const wish = { model: "bos", echo: true, logprobs: 0, ...answer, presence_penalty: 2 };
    for (const prompt of ["abc", [1, byteToken(97), 0, byteToken(98)]]) {
      const asked = await own.ask("/v1/completions", { ...wish, prompt });
      const { text: said, logprobs } = (await json<CompletionResponse>(asked)).choices[0]!;
      const { tokens, text_offset: offsets } = logprobs!;
      const shown = tokens.map((token, i) => said.startsWith(token, offsets[i]));
      const told =
        typeof prompt === "string" ? [false, ...[...prompt].map(() => true)] : prompt.map(() => true);
      expect({ said, shown: shown.slice(0, told.length) }).toEqual({ said, shown: told });
      expect(tokens.slice(told.length)).toContain("<|end|>");
      const letters = tokens.flatMap((token, i) => (token.length === 1 ? [said[offsets[i]!] === token] : []));
      expect(letters).toEqual(letters.map(() => true));
      expect(letters.length).toBeGreaterThan(4);
    }
    await own.close();
  });

  test("take several prompts, as texts or ids, and keep their order", async () => {
    const ids = (said: string): number[] => [...said].map((ch) => byteToken(ch.charCodeAt(0)));
    const said = ["abc", "xyz", "mno"];
    const single = await Promise.all(
      said.map(async (prompt) => {
        const wish = { ...text, prompt, n: 2, temperature: 1, seed: 3 };
        const { choices } = await json<CompletionResponse>(await app.ask("/v1/completions", wish));
        return choices.map((choice) => choice.text);
      }),
    );
    const wish = { ...text, n: 2, temperature: 1, seed: 3 };
    for (const prompt of [said, said.map(ids)]) {
      const { choices } = await json<CompletionResponse>(
        await app.ask("/v1/completions", { ...wish, prompt }),
      );
      expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5]);
      expect(choices.map((choice) => choice.text)).toEqual(single.flat());
    }
  });

  test("stream bytes that make no character as the whole answer has them", async () => {
    const wish = { ...text, logit_bias: null, max_tokens: 60 };
    const whole = await json<CompletionResponse>(await app.ask("/v1/completions", wish));
    const chunks = await events<CompletionResponse>(
      await app.ask("/v1/completions", { ...wish, stream: true }),
    );
    expect(whole.choices[0]!.text).toContain("\uFFFD");
    expect(chunks.map((chunk) => chunk.choices[0]!.text).join("")).toBe(whole.choices[0]!.text);
  });
});

describe("text", () => {
  test("special tokens typed by a user stay text", async () => {
    const typed = "a<|end|>b";
    const { tokens } = await json<{ tokens: number[] }>(await app.ask("/tokenize", { prompt: typed }));
    expect(tokens).not.toContain(0);
    const parsed = await json<{ tokens: number[] }>(
      await app.ask("/tokenize", { prompt: typed, parse_special: true }),
    );
    expect(parsed.tokens).toEqual([byteToken(97), 0, byteToken(98)]);
    expect(await json(await app.ask("/detokenize", { tokens }))).toEqual({ prompt: typed });
    const messages = [{ role: "user", content: typed }];
    const chat = await json<{ prompt: string; tokens: number[] }>(
      await app.ask("/apply-template", { messages }),
    );
    expect(chat.prompt).toContain(typed);
    // the template's own one only
    expect(chat.tokens.filter((id) => id === 0)).toHaveLength(1);
  });
});

describe("adapters", () => {
  test("are models of their own, with the base as parent", async () => {
    const { data } = await json<{ data: { id: string; parent: string | null }[] }>(
      await app.ask("/v1/models"),
    );
    expect(data.map(({ id, parent }) => [id, parent])).toEqual([
      ["tiny", null],
      ["fa", "tiny"],
      ["lora", "tiny"],
    ]);
    expect(await json<object>(await app.ask("/v1/models/fa"))).toMatchObject({ id: "fa" });
    const answers = await Promise.all(
      ["tiny", "fa", "lora"].map(async (model) =>
        json<ChatResponse>(await app.ask("/v1/chat/completions", { ...hello, model })),
      ),
    );
    expect(new Set(answers.map(({ choices }) => choices[0]!.message.content)).size).toBe(3);
    expect(new Set(answers.map((answer) => answer.system_fingerprint)).size).toBe(3);
    expect(answers.map(({ model }) => model)).toEqual(["tiny", "fa", "lora"]);
  });

  test("come and go by name, with vLLM's names too", async () => {
    const before = await json<ChatResponse>(await app.ask("/v1/chat/completions", { ...hello, model: "fa" }));
    const gone = await app.ask("/v1/adapters/fa", undefined, { method: "DELETE" });
    expect(await json<object>(gone)).toEqual({ name: "fa", deleted: true });
    const missing = await app.ask("/v1/chat/completions", { ...hello, model: "fa" });
    expect(missing.status).toBe(404);
    expect(((await missing.json()) as ErrorBody).error.message).toContain('"tiny", "lora"');
    expect((await app.ask("/v1/adapters/fa")).status).toBe(404);
    const { data } = await json<{ data: object[] }>(await app.ask("/v1/adapters"));
    expect(data).toContainEqual(expect.objectContaining({ name: "fa", loaded: false }));
    const put = await app.ask("/v1/adapters/fa", undefined, { method: "PUT" });
    expect(await json<object>(put)).toMatchObject({ name: "fa", loaded: true, method: "sbora-fa", rank: 4 });
    const unload = await app.ask("/v1/unload_lora_adapter", { lora_name: "fa" });
    expect(await unload.text()).toContain("removed");
    const load = await app.ask("/v1/load_lora_adapter", { lora_name: "fa", lora_path: "/models/loras/fa/" });
    expect(await load.text()).toContain("added");
    const after = await json<ChatResponse>(await app.ask("/v1/chat/completions", { ...hello, model: "fa" }));
    expect(after.choices).toEqual(before.choices);
    expect(after.usage.prompt_tokens_details.cached_tokens).toBe(0);
  });
});

test("loading an adapter may take long: the connection is kept open, as for an answer", async () => {
  const body = JSON.stringify({ lora_name: "fa" });
  const asks: [path: string, init: RequestInit][] = [
    ["/v1/adapters/fa", { method: "DELETE" }],
    ["/v1/adapters/fa", { method: "PUT" }],
    ["/v1/unload_lora_adapter", { method: "POST", body }],
    ["/v1/load_lora_adapter", { method: "POST", body }],
    ["/v1/completions", { method: "POST", body: JSON.stringify(text) }],
  ];
  for (const [path, init] of asks) {
    const timeouts: number[] = [];
    const bun = { timeout: (_: Request, seconds: number) => void timeouts.push(seconds) };
    const response = await app.app.request(path, { headers: JSON_TYPE, ...init }, bun);
    expect({ path, status: response.status, timeouts }).toEqual({ path, status: 200, timeouts: [0] });
  }
});

describe("documents", () => {
  test("answers have the shapes that /openapi.json promises", async () => {
    const logged = { ...hello, logprobs: true, top_logprobs: 1 };
    schema.chatResponse.parse(await json(await app.ask("/v1/chat/completions", logged)));
    for (const chunk of await events(await app.ask("/v1/chat/completions", { ...logged, stream: true })))
      schema.chatChunk.parse(chunk);
    const echoed = { ...text, echo: true, logprobs: 2 };
    schema.completionResponse.parse(await json(await app.ask("/v1/completions", echoed)));
    for (const chunk of await events(await app.ask("/v1/completions", { ...echoed, stream: true })))
      schema.completionResponse.parse(chunk);
    schema.modelList.parse(await json(await app.ask("/v1/models")));
    schema.adapterList.parse(await json(await app.ask("/v1/adapters")));
    schema.tokenizeResponse.parse(await json(await app.ask("/tokenize", { prompt: "a b" })));
    const { paths } = await json<{ paths: Record<string, object> }>(await app.ask("/openapi.json"));
    // every route of the app is described
    const routes = app.app.routes.filter(({ method }) => method !== "ALL");
    const described = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ":$1")}`),
    );
    const page = ["GET /", "GET /page.js", "GET /openapi.json"];
    const all = new Set(routes.map(({ method, path }) => `${method} ${path}`));
    expect([...all].sort()).toEqual([...described, ...page].sort());
  });

  test("/openapi.json says which bodies are refused: texts without tokens, top_logprobs without logprobs", async () => {
    type Schema = { readonly properties: Record<string, unknown>; readonly anyOf?: unknown };
    type Post = { post: { requestBody: { content: { "application/json": { schema: Schema } } } } };
    const { paths } = await json<{ paths: Record<string, Post> }>(await app.ask("/openapi.json"));
    const bodyOf = (path: string): Schema => paths[path]!.post.requestBody.content["application/json"].schema;
    expect(JSON.stringify(bodyOf("/v1/chat/completions").anyOf)).toContain('"required":["logprobs"]');
    // the tiny model puts no token in front, so an empty text has none
    const prompts = JSON.stringify(bodyOf("/v1/completions").properties.prompt);
    expect(prompts.match(/"minLength":1/g)).toHaveLength(2);
    expect(prompts.match(/"minItems":1/g)).toHaveLength(4);
    // streams are described event by event
    expect(JSON.stringify(paths).match(/"text\/event-stream":{"schema":{"type":"object"/g)).toHaveLength(2);
    expect((await app.ask("/v1/completions", { ...text, prompt: "" })).status).toBe(400);
    expect((await app.ask("/v1/chat/completions", { ...hello, top_logprobs: 1 })).status).toBe(400);
  });

  test("metrics count what happened", async () => {
    const lines = (await (await app.ask("/metrics")).text()).split("\n");
    const value = (name: string): number =>
      Number(lines.find((l) => l.startsWith(`${name} `))!.split(" ")[1]);
    expect(value("sbora_generated_tokens_total")).toBeGreaterThan(100);
    expect(value("sbora_sequences_running")).toBe(0);
    expect(value("sbora_step_seconds_count")).toBeGreaterThan(10);
    expect(
      lines.some((l) => l.startsWith('sbora_requests_total{route="/v1/chat/completions",status="200"}')),
    ).toBe(true);
  });

  test("logs have numbers and names, and no text", () => {
    const all = JSON.stringify(app.logs);
    expect(app.logs.find((record) => record.path === "/v1/chat/completions")).toMatchObject({
      model: "tiny",
      status: 200,
      completion_tokens: 24,
    });
    for (const word of ["Hello", "once upon", "Be brief"]) expect(all).not.toContain(word);
  });
});
