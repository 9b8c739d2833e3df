/** Whatever is wrong with a request, its sender gets the right status and an error of the one shape. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errorResponse } from "./schema.ts";
import {
  events,
  type TinyApp,
  type TinyAppOptions,
  type TinyFolders,
  tinyApp,
  tinyFolders,
} from "./testing-app.ts";

setDefaultTimeout(60_000);

let folders: TinyFolders;
let app: TinyApp;
beforeAll(async () => {
  folders = await tinyFolders();
  symlinkSync("/", join(folders.adapters, "outside"));
  app = tinyApp(folders);
  await app.ready;
});
afterAll(async () => {
  await app.close();
  folders.remove();
});

interface Refusal {
  readonly status: number;
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: string | null;
}

/** Every refusal of this file. */
const told: string[] = [];

async function refusal(response: Response): Promise<Refusal> {
  const body = (await response.json()) as unknown;
  told.push(JSON.stringify(body));
  // nothing beside the four fields
  const { error } = errorResponse.strict().parse(body);
  expect(Object.keys(error).sort()).toEqual(["code", "message", "param", "type"]);
  return { status: response.status, ...error };
}

const chat = { model: "tiny", messages: [{ role: "user", content: "hi" }], max_tokens: 2 };
const completion = { model: "tiny", prompt: "hi", max_tokens: 2 };

describe("bad requests", () => {
  const cases: [name: string, path: string, body: unknown, param: string | null, words: string][] = [
    ["no body", "/v1/chat/completions", undefined, null, "JSON"],
    ["no model", "/v1/chat/completions", { messages: chat.messages }, "model", "model"],
    ["no messages", "/v1/chat/completions", { model: "tiny", messages: [] }, "messages", "messages"],
    [
      "a wrong role",
      "/v1/chat/completions",
      { ...chat, messages: [{ content: "x" }] },
      "messages.0.role",
      "role",
    ],
    [
      "an image",
      "/v1/chat/completions",
      { ...chat, messages: [{ role: "user", content: [{ type: "image_url" }] }] },
      "messages.0.content",
      "content",
    ],
    ["a hot temperature", "/v1/chat/completions", { ...chat, temperature: 3 }, "temperature", "temperature"],
    ["no answer", "/v1/chat/completions", { ...chat, n: 0 }, "n", "n:"],
    ["top_logprobs alone", "/v1/chat/completions", { ...chat, top_logprobs: 2 }, "top_logprobs", "logprobs"],
    ["tools", "/v1/chat/completions", { ...chat, tools: [{}] }, "tools", "not supported"],
    [
      "JSON mode",
      "/v1/chat/completions",
      { ...chat, response_format: { type: "json_object" } },
      "response_format",
      "not supported",
    ],
    ["too long an answer", "/v1/chat/completions", { ...chat, max_tokens: 512 }, "messages", "512"],
    [
      "too long a prompt",
      "/v1/completions",
      { ...completion, prompt: new Array(600).fill(5) },
      "prompt",
      "600",
    ],
    ["an empty prompt", "/v1/completions", { ...completion, prompt: "" }, "prompt", "no tokens"],
    ["an empty list", "/v1/completions", { ...completion, prompt: [] }, "prompt", "no tokens"],
    ["a mixed list", "/v1/completions", { ...completion, prompt: ["a", 1] }, "prompt", "prompt"],
    ["an unknown token", "/v1/completions", { ...completion, prompt: [272] }, "prompt", "272"],
    [
      "an unknown biased token",
      "/v1/completions",
      { ...completion, logit_bias: { 999: 1 } },
      "logit_bias",
      "999",
    ],
    [
      "a biased word",
      "/v1/completions",
      { ...completion, logit_bias: { x: 1 } },
      "logit_bias.x",
      "logit_bias",
    ],
    ["a suffix", "/v1/completions", { ...completion, suffix: "x" }, "suffix", "not supported"],
    ["an empty stop string", "/v1/completions", { ...completion, stop: "" }, "stop", "stop"],
    ["an unknown token to decode", "/detokenize", { tokens: [272] }, "tokens", "272"],
    ["a path upwards", "/v1/load_lora_adapter", { lora_name: ".." }, "lora_name", "lora_name"],
    ["the base unloaded", "/v1/unload_lora_adapter", { lora_name: "tiny" }, "name", "base"],
  ];
  for (const [name, path, body, param, words] of cases) {
    test(name, async () => {
      const response = await app.ask(path, body, { method: "POST" });
      const refused = await refusal(response);
      expect(refused).toMatchObject({ status: 400, type: "invalid_request_error", param });
      expect(refused.message).toContain(words);
    });
  }

  test("are refused before a stream begins", async () => {
    const response = await app.ask("/v1/completions", { ...completion, stream: true, prompt: "" });
    expect((await refusal(response)).status).toBe(400);
  });

  test("too deeply nested: 400, not a stack that overflows", async () => {
    const nest = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
    const body = JSON.stringify(chat).replace("{", `{"chat_template_kwargs":{"x":${nest}},`);
    const response = await app.ask("/v1/chat/completions", undefined, { method: "POST", body });
    expect(await refusal(response)).toMatchObject({ status: 400, type: "invalid_request_error" });
  });

  test("with many mistakes name them all", async () => {
    const { message } = await refusal(await app.ask("/v1/completions", { model: 1, prompt: 2, n: -1 }));
    for (const field of ["model", "prompt", "n"]) expect(message).toContain(`${field}:`);
  });

  test("that a template refuses say why", async () => {
    writeFileSync(join(folders.model, "chat_template.jinja"), "{{ raise_exception('only one message') }}");
    const strict = tinyApp(folders);
    await strict.ready;
    const { status, message } = await refusal(await strict.ask("/v1/chat/completions", chat));
    expect(status).toBe(400);
    expect(message).toContain("only one message");
    expect(message).toContain("chat_template.jinja");
    expect(message).not.toContain(folders.root);
    await strict.close();
  });
});

describe("content types", () => {
  const routes: [path: string, body: object][] = [
    ["/v1/chat/completions", chat],
    ["/v1/completions", completion],
    ["/v1/load_lora_adapter", { lora_name: "fa" }],
    ["/v1/unload_lora_adapter", { lora_name: "fa" }],
    ["/tokenize", { prompt: "hi" }],
    ["/detokenize", { tokens: [5] }],
    ["/apply-template", { messages: chat.messages }],
  ];

  test("that a browser sends across origins without asking are 415 on every route with a body", async () => {
    const posts = app.app.routes.filter(({ method }) => method === "POST").map(({ path }) => path);
    expect(new Set(posts)).toEqual(new Set(routes.map(([path]) => path)));
    for (const [path, body] of routes) {
      for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", null]) {
        const headers: Record<string, string> = type === null ? {} : { "Content-Type": type };
        // a Blob without a type: no header at all
        const sent = type === null ? new Blob([JSON.stringify(body)]) : JSON.stringify(body);
        const refused = await refusal(
          await app.ask(path, undefined, { method: "POST", headers, body: sent }),
        );
        expect(refused).toMatchObject({ status: 415, code: "unsupported_media_type" });
        expect(refused.message).toContain("application/json");
        expect(refused.message).toContain(type ?? "missing");
      }
    }
    // nothing was unloaded
    expect((await app.ask("/v1/models/fa")).status).toBe(200);
  });

  test("JSON passes with parameters, in any case", async () => {
    for (const type of ["application/json; charset=utf-8", "Application/JSON"]) {
      const headers = { "Content-Type": type };
      expect((await app.ask("/tokenize", { prompt: "hi" }, { headers })).status).toBe(200);
    }
  });
});

describe("adapters that cannot be used", () => {
  interface Header {
    readonly [name: string]: { readonly dtype: string; readonly data_offsets: readonly [number, number] };
  }

  /** A copy of `fa` whose first trained value is another. @returns its tensor's name */
  function spoilt(name: string, value: number): string {
    cpSync(join(folders.adapters, "fa"), join(folders.adapters, name), { recursive: true });
    const file = join(folders.adapters, name, "adapter_model.safetensors");
    const bytes = readFileSync(file);
    const start = 8 + Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, start).toString()) as Header;
    const [tensor, entry] = Object.entries(header).find(([, { dtype }]) => dtype === "F32")!;
    bytes.writeFloatLE(value, start + entry.data_offsets[0]);
    writeFileSync(file, bytes);
    return tensor;
  }

  test("for a value that is not finite are refused by name; the base answers as before", async () => {
    const before = await (await app.ask("/v1/completions", { ...completion, temperature: 0 })).json();
    for (const [name, value] of [
      ["not-a-number", Number.NaN],
      ["infinite", Number.NEGATIVE_INFINITY],
    ] as const) {
      const tensor = spoilt(name, value);
      const response = await app.ask(`/v1/adapters/${name}`, undefined, { method: "PUT" });
      const refused = await refusal(response);
      expect(refused).toMatchObject({ status: 400, code: "adapter_refused", param: "name" });
      expect(refused.message).toContain(tensor);
      expect(refused.message).toContain(String(value));
      expect((await app.ask(`/v1/models/${name}`)).status).toBe(404);
    }
    const after = await (await app.ask("/v1/completions", { ...completion, temperature: 0 })).json();
    const said = (answer: unknown): unknown => (answer as { choices: unknown }).choices;
    expect(said(after)).toEqual(said(before));
  });

  test("for finite values that make infinite weights are refused by their module", async () => {
    const tensor = spoilt("too-large", 3e38);
    const refused = await refusal(await app.ask("/v1/adapters/too-large", undefined, { method: "PUT" }));
    expect(refused).toMatchObject({ status: 400, code: "adapter_refused" });
    const module = /model\.model\.(layers.*)\.lora/.exec(tensor)![1]!;
    // alpha / r is 2
    expect(refused.message).toContain(`module ${module}: its factors may change a weight by 6.00e+38`);
  });

  test("because they are whole models say so", async () => {
    cpSync(folders.model, join(folders.adapters, "whole"), { recursive: true });
    const refused = await refusal(await app.ask("/v1/adapters/whole", undefined, { method: "PUT" }));
    expect(refused).toMatchObject({ status: 400, code: "adapter_refused" });
    expect(refused.message).toContain("whole: this is a whole model");
    expect(refused.message).toContain("--model");
  });

  test("are named in the answer; where they lie is for the log alone", async () => {
    mkdirSync(join(folders.adapters, "empty"));
    const response = await app.ask("/v1/adapters/empty", undefined, { method: "PUT" });
    const { status, message } = await refusal(response);
    expect({ status, names: message.includes("empty: ") }).toEqual({ status: 400, names: true });
    const line = app.logs.findLast(({ path }) => path === "/v1/adapters/empty")!;
    expect(line.detail).toContain(join(folders.adapters, "empty"));
    expect(told.join("\n")).toContain(message);
    expect(told.filter((text) => text.includes(folders.root))).toEqual([]);
  });
});

describe("names", () => {
  test("unknown ones are 404 with the list, never the base's answer", async () => {
    for (const [path, body] of [
      ["/v1/chat/completions", { ...chat, model: "tiny-" }],
      ["/v1/completions", { ...completion, model: "FA" }],
    ] as const) {
      const refused = await refusal(await app.ask(path, body));
      expect(refused).toMatchObject({ status: 404, code: "model_not_found", param: "model" });
      expect(refused.message).toContain('"tiny", "fa", "lora"');
    }
    expect((await refusal(await app.ask("/v1/models/none"))).status).toBe(404);
    expect((await refusal(await app.ask("/v1/adapters/none"))).status).toBe(404);
  });

  test("lead nowhere outside the adapter folder", async () => {
    const put = (name: string): Promise<Response> =>
      app.ask(`/v1/adapters/${name}`, undefined, { method: "PUT" });
    for (const name of ["outside", "none", "..%2Ftiny", "%2e%2e", ".hidden", "a%2Fb", "%00"]) {
      const { status } = await refusal(await put(name));
      expect({ name, ok: status === 404 || status === 400 }).toEqual({ name, ok: true });
    }
    const path = { lora_name: "fa", lora_path: "/etc/passwd" };
    const foreign = await refusal(await app.ask("/v1/load_lora_adapter", path));
    expect(foreign).toMatchObject({ status: 404, param: "lora_path" });
    expect(await refusal(await put("tiny"))).toMatchObject({ status: 409, code: "name_taken" });
    writeFileSync(join(folders.adapters, "fa", "sbora.json"), "{}");
    expect(await refusal(await put("fa"))).toMatchObject({ status: 400, code: "adapter_refused" });
  });

  test("of links that lead out of the folder, or nowhere, are in no list", async () => {
    symlinkSync(join(folders.root, "nowhere"), join(folders.adapters, "dangling"));
    const { data } = (await (await app.ask("/v1/adapters")).json()) as { data: { name: string }[] };
    const names = data.map(({ name }) => name);
    expect(names).toContain("fa");
    for (const name of ["outside", "dangling"]) {
      expect(names).not.toContain(name);
      const { message } = await refusal(await app.ask(`/v1/adapters/${name}`));
      expect(message).toContain(`There is no adapter "${name}"`);
      expect(message.slice(message.indexOf(";"))).not.toContain(`"${name}"`);
    }
  });

  test("of an adapter folder that has gone: what is loaded stays, the rest is 404", async () => {
    renameSync(folders.adapters, `${folders.adapters}-away`);
    expect((await app.ask("/v1/models/lora")).status).toBe(200);
    expect((await app.ask("/v1/adapters")).status).toBe(200);
    for (const method of ["GET", "PUT"]) {
      const refused = await refusal(await app.ask("/v1/adapters/none", undefined, { method }));
      expect(refused).toMatchObject({ status: 404, code: "adapter_not_found" });
    }
    renameSync(`${folders.adapters}-away`, folders.adapters);
  });

  test("of routes: 404, and 405 with what is allowed", async () => {
    expect(await refusal(await app.ask("/v1/nothing"))).toMatchObject({
      status: 404,
      code: "route_not_found",
    });
    const response = await app.ask("/v1/chat/completions");
    expect(response.headers.get("allow")).toBe("POST");
    expect((await refusal(response)).status).toBe(405);
  });
});

describe("limits", () => {
  async function withApp<T>(options: TinyAppOptions, use: (own: TinyApp) => Promise<T>): Promise<T> {
    const own = tinyApp(folders, options);
    try {
      return await use(own);
    } finally {
      await own.close();
    }
  }

  test("too large a body is 413", async () => {
    const large = await app.ask("/v1/completions", { ...completion, prompt: "x".repeat(70_000) });
    expect(await refusal(large)).toMatchObject({ status: 413, code: "body_too_large" });
  });

  test("a full queue is 429 with Retry-After, and what was taken is answered", async () => {
    await withApp({ queue: 2, engine: { maxSequences: 1 } }, async (own) => {
      await own.ready;
      const long = { ...completion, max_tokens: 100, ignore_eos: true };
      const responses = await Promise.all(Array.from({ length: 6 }, () => own.ask("/v1/completions", long)));
      const statuses = responses.map(({ status }) => status).sort();
      expect(statuses).toEqual([200, 200, 200, 429, 429, 429]);
      const full = responses.find(({ status }) => status === 429)!;
      expect(Number(full.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
      expect(await refusal(full)).toMatchObject({ type: "rate_limit_error", code: "queue_full" });
      expect((await own.ask("/v1/completions", long)).status).toBe(200);
    });
  });

  test("more answers than the server runs at once are 400", async () => {
    await withApp({ engine: { maxSequences: 2 } }, async (own) => {
      await own.ready;
      expect(await refusal(await own.ask("/v1/completions", { ...completion, n: 3 }))).toMatchObject({
        status: 400,
        param: "n",
      });
    });
  });

  test("503 while the model loads and while the server ends; what runs goes on", async () => {
    await withApp({}, async (own) => {
      for (const path of ["/health", "/v1/models"]) {
        const refused = await refusal(await own.ask(path));
        expect(refused).toMatchObject({ status: 503, code: "loading" });
      }
      await own.ready;
      expect((await own.ask("/health")).status).toBe(200);
      const running = own.ask("/v1/completions", { ...completion, max_tokens: 50, ignore_eos: true });
      await Bun.sleep(5);
      own.refuseWork();
      expect(await refusal(await own.ask("/v1/completions", completion))).toMatchObject({
        status: 503,
        code: "draining",
      });
      expect((await own.ask("/health")).status).toBe(503);
      expect((await running).status).toBe(200);
    });
  });

  test("503 until the adapters are loaded as well: their names are never unknown", async () => {
    await withApp({}, async (own) => {
      while ((await own.ask("/health")).status === 503) await Bun.sleep(0);
      expect((await own.ask("/v1/models/lora")).status).toBe(200);
    });
  });

  test("a stream that is cut by the server's end says so", async () => {
    await withApp({}, async (own) => {
      await own.ready;
      const long = { ...completion, max_tokens: 400, ignore_eos: true, stream: true };
      const response = await own.ask("/v1/completions", long);
      own.serving.engine.cancelAll();
      const all = await events<{ error?: { code: string } }>(response);
      expect(all.at(-1)!.error!.code).toBe("shutting_down");
    });
  });

  test("a model that cannot be loaded fails with the sentence for the user", async () => {
    writeFileSync(join(folders.model, "model.safetensors"), "nothing");
    await withApp({}, async (own) => {
      await expect(own.ready).rejects.toThrow("model.safetensors");
      expect((await own.ask("/health")).status).toBe(503);
    });
  });
});

describe("keys and origins", () => {
  const settings = { apiKeys: ["first", "second"], adminKeys: ["root"], cors: ["https://example.org"] };

  test("open what they are for, and nothing else", async () => {
    const own = tinyApp(folders, { settings });
    const get = (path: string, key?: string, method = "GET"): Promise<Response> =>
      own.ask(path, undefined, { method, headers: key ? { Authorization: `Bearer ${key}` } : {} });
    expect(await refusal(await get("/v1/models"))).toMatchObject({
      status: 401,
      type: "authentication_error",
    });
    for (const wrong of ["fir", "firstx", "root", "x"])
      expect((await get("/v1/models", wrong)).status).toBe(401);
    // past the key the model is still loading
    for (const right of ["first", "second"]) expect((await get("/v1/models", right)).status).toBe(503);
    expect((await get("/v1/adapters/fa", "first", "PUT")).status).toBe(401);
    expect((await get("/v1/adapters/fa", "root", "PUT")).status).toBe(503);
    expect((await get("/metrics")).status).toBe(401);
    expect((await get("/health")).status).toBe(503);
    expect((await get("/")).status).toBe(200);
    expect(JSON.stringify(own.logs)).not.toContain("firstx");
    await own.close();
  });

  test("let the origins on the list in, with no key for the preflight", async () => {
    const own = tinyApp(folders, { settings });
    const preflight = (origin: string): Promise<Response> =>
      own.ask("/v1/models", undefined, {
        method: "OPTIONS",
        headers: { Origin: origin, "Access-Control-Request-Method": "GET" },
      });
    const allowed = await preflight("https://example.org");
    expect(allowed.headers.get("access-control-allow-origin")).toBe("https://example.org");
    expect((await preflight("https://other.org")).headers.get("access-control-allow-origin")).toBeNull();
    await own.close();
  });
});
