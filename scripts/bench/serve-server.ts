/** The servers that are measured: child processes on a port of their own, asked over HTTP like any client's. */
import { resolve } from "node:path";
import type { Compute } from "../../src/adapters/adapter.ts";
import { InputError } from "../../src/errors.ts";
import { eventsIn } from "../../src/serving/page/events.ts";
import type { CompletionResponse } from "../../src/serving/schema.ts";

const SERVE = resolve(import.meta.dir, "../serve.ts");
/** A model is loaded within this, or something is wrong. */
const START_MS = 120_000;
const KEPT_CHARACTERS = 2000;

export interface ChildServer {
  readonly name: string;
  readonly url: string;
  close(): Promise<void>;
}

export interface ServerPlan {
  readonly threads: number;
  /** Requests that run at once. */
  readonly slots: number;
  /** Longest of them, in tokens. */
  readonly context: number;
}

/** scripts/serve.ts with these flags, on any free port. */
export function startServe(
  flags: readonly string[],
): Promise<{ readonly url: string; close(): Promise<void> }> {
  const command = [process.execPath, "run", SERVE, "--port", "0", ...flags];
  return start("our server", command, /Ready: .* (http:\/\/\S+)/);
}

/** Our server on a model folder, without the prefix cache: every prompt is computed. */
export async function startOurs(dir: string, compute: Compute, plan: ServerPlan): Promise<ChildServer> {
  const { threads, slots, context } = plan;
  const flags = ["--model", dir, "--name", "bench", "--compute", compute, "--no-prefix-cache"];
  const sizes = { threads, context, "max-sequences": slots, "kv-tokens": slots * context };
  const numbers = Object.entries(sizes).flatMap(([flag, value]) => [`--${flag}`, `${value}`]);
  const { url, close } = await startServe([...flags, ...numbers]);
  return { name: "ours", url, close };
}

/** llama.cpp's server on a GGUF file, its threads as many as ours and its slots and cache as large. */
export async function startLlamaServer(binary: string, gguf: string, plan: ServerPlan): Promise<ChildServer> {
  const { threads, slots, context } = plan;
  const port = freePort();
  const sizes = { threads, "threads-batch": threads, parallel: slots, "ctx-size": slots * context, port };
  const numbers = Object.entries(sizes).flatMap(([flag, value]) => [`--${flag}`, `${value}`]);
  // --cache-ram 0: what a slot has computed is not copied aside for later.
  const command = [binary, "--model", gguf, "--host", "127.0.0.1", ...numbers, "--cache-ram", "0"];
  const server = await start("llama.cpp's server", command, null);
  const url = `http://127.0.0.1:${port}`;
  const deadline = performance.now() + START_MS;
  for (;;) {
    if (
      await fetch(`${url}/health`).then(
        (response) => response.ok,
        () => false,
      )
    )
      break;
    if (performance.now() > deadline || server.ended()) return server.fail("did not get ready");
    await Bun.sleep(50);
  }
  return { name: "llama-server", url, close: server.close };
}

export function llamaServerVersion(binary: string): string {
  const { stdout, stderr } = Bun.spawnSync([binary, "--version"], { stdout: "pipe", stderr: "pipe" });
  return /version: .*/.exec(`${stdout}${stderr}`)?.[0] ?? "unknown";
}

function freePort(): number {
  const probe = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("") });
  const { port } = probe;
  void probe.stop(true);
  return port!;
}

interface Started {
  /** What `ready` caught; "" without one. */
  readonly url: string;
  ended(): boolean;
  fail(what: string): Promise<never>;
  close(): Promise<void>;
}

/** `ready`: what it writes on stderr once it serves, with the address. */
async function start(name: string, command: readonly string[], ready: RegExp | null): Promise<Started> {
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  let told = "";
  const found = Promise.withResolvers<string>();
  const drained = (async () => {
    for await (const chunk of child.stderr) {
      told = (told + new TextDecoder().decode(chunk)).slice(-KEPT_CHARACTERS);
      const url = ready?.exec(told)?.[1];
      if (url !== undefined) found.resolve(url);
    }
    found.resolve("");
  })();
  const close = async (): Promise<void> => {
    child.kill("SIGTERM");
    await Promise.all([child.exited, drained]);
  };
  const fail = async (what: string): Promise<never> => {
    await close();
    throw new InputError(`${name} (${command[0]}) ${what}. It wrote:\n${told.trim() || "(nothing)"}`);
  };
  const timer = setTimeout(() => found.resolve(""), START_MS);
  const url = ready === null ? "" : await found.promise;
  clearTimeout(timer);
  if (ready !== null && url === "") return fail("did not get ready");
  return { url, ended: () => child.exitCode !== null, fail, close };
}

export interface CompletionWish {
  readonly prompt: readonly number[];
  readonly tokens: number;
  /** Every token has an event of its own then, even where its characters are incomplete. */
  readonly logprobs?: number;
}

/** What both servers are asked: greedy, to the last token, nothing remembered. */
function completionBody({ prompt, tokens, logprobs }: CompletionWish): Record<string, unknown> {
  return {
    ...{ model: "bench", prompt, max_tokens: tokens, temperature: 0, ignore_eos: true, cache_prompt: false },
    ...(logprobs === undefined ? {} : { logprobs }),
  };
}

async function post({ name, url }: ChildServer, body: object, signal?: AbortSignal): Promise<Response> {
  const headers = { "Content-Type": "application/json" };
  const init = { method: "POST", headers, body: JSON.stringify(body), ...(signal ? { signal } : {}) };
  const response = await fetch(new URL("/v1/completions", url), init);
  if (response.ok) return response;
  throw new InputError(`${name} answered ${response.status}: ${(await response.text()).slice(0, 500)}`);
}

export async function complete(server: ChildServer, wish: CompletionWish): Promise<CompletionResponse> {
  return (await (await post(server, completionBody(wish))).json()) as CompletionResponse;
}

export interface Stream {
  /** performance.now() of each event with a choice, so far. */
  readonly times: readonly number[];
  /** Resolves at the end, with the number of tokens that the server counted. */
  readonly done: Promise<number>;
  /** The client leaves; `done` then rejects. */
  leave(): void;
}

export function openStream(server: ChildServer, wish: CompletionWish): Stream {
  const times: number[] = [];
  const left = new AbortController();
  const read = async (): Promise<number> => {
    const body = { ...completionBody(wish), stream: true, stream_options: { include_usage: true } };
    const response = await post(server, body, left.signal);
    let tokens = 0;
    for await (const { choices, usage } of eventsIn<CompletionResponse>(response.body!)) {
      if (choices.length > 0) times.push(performance.now());
      if (usage) tokens = usage.completion_tokens;
    }
    if (tokens !== wish.tokens)
      throw new InputError(`${server.name} generated ${tokens} tokens, asked for ${wish.tokens}`);
    return tokens;
  };
  const done = read();
  // Whoever waits for it sees the rejection.
  done.catch(() => {});
  return { times, done, leave: () => left.abort() };
}

/** A counter of our server's /metrics. */
export async function counterOf({ url }: ChildServer, name: string): Promise<number> {
  const text = await (await fetch(new URL("/metrics", url))).text();
  const line = text.split("\n").find((one) => one.startsWith(`${name} `));
  if (line === undefined) throw new Error(`the server has no metric ${name}`);
  return Number(line.split(" ")[1]);
}
