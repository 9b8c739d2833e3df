/** A running server: the engine in its Worker, the app on a port, and an orderly end. */
import { basename, resolve } from "node:path";
import { InputError, messageOf } from "../errors.ts";
import { readLlamaConfig } from "../formats/hf-config.ts";
import { loadChatTemplate } from "../text/chat-template.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { createApp } from "./app.ts";
import { createEngineClient, type EnginePort } from "./client.ts";
import type { LogRecord, Serving, Settings } from "./context.ts";
import { ApiError } from "./errors.ts";
import { createLongTexts } from "./long-texts.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { createModels } from "./models.ts";
import type { EngineEvent, EngineOptions, EngineStats } from "./protocol.ts";
import { createTokenText } from "./token-text.ts";

/** For the answers that a drain cuts. */
const LAST_WORDS_MS = 500;

export interface ServerOptions {
  readonly engine: EngineOptions;
  /** Name of the base model in requests; default: its folder's. */
  readonly name: string | null;
  readonly adapters: string | null;
  readonly host: string;
  readonly port: number;
  /** Requests that may wait beside those that run. */
  readonly queue: number;
  /** How long running requests have when the server ends, in ms. */
  readonly drainMs: number;
  readonly settings: Omit<Settings, "context" | "vocabulary" | "maxSequences">;
  readonly log: (record: LogRecord) => void;
}

export interface RunningServer {
  readonly url: string;
  readonly serving: Serving;
  /** Resolves when model and adapters are loaded. @throws InputError when they cannot be */
  readonly ready: Promise<void>;
  /** Resolves when the server has ended, with the exit code. */
  readonly ended: Promise<number>;
  /** Takes no new work, waits for what runs up to the deadline, cuts the rest. Called again, it waits no longer. */
  drain(): Promise<void>;
}

/** All of a server but the socket. */
export interface Assembly {
  readonly serving: Serving;
  readonly app: ReturnType<typeof createApp>;
  readonly ready: Promise<void>;
  /** From here on new work is refused. */
  refuseWork(): void;
  /** Resolves when the engine stops by itself. */
  readonly failed: Promise<void>;
}

/** Checks the folder and starts loading; requests get 503 until the model is there. */
export function assemble(
  options: Omit<ServerOptions, "host" | "port" | "drainMs">,
  port: EnginePort,
): Assembly {
  const { engine: engineOptions, log } = options;
  const failed = Promise.withResolvers<void>();
  const metrics = createMetrics();
  const dir = engineOptions.model;
  const config = readLlamaConfig(dir);
  const tokenizer = loadTokenizer(dir);
  const template = loadChatTemplate(dir, tokenizer);
  let loaded = false;
  let draining = false;
  let fingerprint = "";
  const engine = createEngineClient(port, {
    engine: engineOptions,
    capacity: options.queue + engineOptions.maxSequences,
    onStep: (stats, events) => measure(metrics, stats, events),
    onFailure(message) {
      log({ level: "error", error: message });
      failed.resolve();
    },
  });
  const models = createModels(options.name ?? basename(resolve(dir)), options.adapters, engine);
  const serving: Serving = {
    settings: {
      ...options.settings,
      context: engineOptions.context,
      vocabulary: config.vocabSize,
      maxSequences: engineOptions.maxSequences,
    },
    engine,
    models,
    tokenizer,
    longTexts: createLongTexts(dir),
    tokenText: createTokenText(tokenizer),
    fingerprint: () => fingerprint,
    template,
    eosIds: [...new Set([...tokenizer.eosIds, ...config.eosTokenIds])],
    metrics,
    log,
    loaded: () => loaded,
    draining: () => draining,
    admitted: new Set(),
  };
  const ready = engine.ready.then(async (info) => {
    fingerprint = info.fingerprint;
    for (const name of models.folders()) await loadAtStart(serving, name);
    loaded = true;
  });
  // Whoever waits for it sees the rejection.
  ready.catch(() => {});
  const refuseWork = (): void => {
    draining = true;
  };
  return { serving, app: createApp(serving), ready, refuseWork, failed: failed.promise };
}

/** An assembled server on a port. */
export function startServer(options: ServerOptions, port: EnginePort): RunningServer {
  const { serving, app, ready, refuseWork, failed } = assemble(options, port);
  const { engine, log } = serving;
  const ended = Promise.withResolvers<number>();
  void failed.then(() => ended.resolve(1));
  const server = listen(options, (request, bun) => app.fetch(request, bun));
  const isBusy = (): boolean => engine.outstanding() + serving.admitted.size > 0;
  let deadline = Number.POSITIVE_INFINITY;
  return {
    url: server.url.href,
    serving,
    ready,
    ended: ended.promise,
    async drain() {
      if (serving.draining()) {
        deadline = 0;
        return;
      }
      deadline = performance.now() + options.drainMs;
      refuseWork();
      log({ level: "info", event: "draining", requests: engine.outstanding() });
      while (isBusy() && performance.now() < deadline) await Bun.sleep(20);
      engine.cancelAll();
      // Those that were cut still tell their clients so.
      await Promise.race([server.stop(), Bun.sleep(LAST_WORDS_MS)]);
      await server.stop(true);
      await engine.close();
      serving.longTexts.close();
      ended.resolve(0);
    },
  };
}

async function loadAtStart({ models, log }: Serving, name: string): Promise<void> {
  try {
    const { method, rank, note } = (await models.load(name)).adapter!;
    const level = note === null ? "info" : "warn";
    log({ level, event: "adapter", name, method, rank, ...(note === null ? {} : { note }) });
  } catch (error) {
    // One bad folder must not keep the others from being served.
    const told = (error instanceof ApiError ? error.detail : null) ?? messageOf(error);
    log({ level: "warn", event: "adapter", name, error: told });
  }
}

function listen(
  { host, port, settings }: ServerOptions,
  fetch: (request: Request, server: Bun.Server<undefined>) => Response | Promise<Response>,
): Bun.Server<undefined> {
  try {
    // Twice the app's own limit, which answers with a proper error.
    return Bun.serve({ hostname: host, port, maxRequestBodySize: 2 * settings.maxBodyBytes, fetch });
  } catch (error) {
    throw new InputError(
      `${host}:${port} cannot be opened (${messageOf(error)}); choose another --port or --host.`,
    );
  }
}

function measure(metrics: Metrics, stats: EngineStats, events: readonly EngineEvent[]): void {
  const counter = (name: string, total: number): void => metrics.count(name, {}, total - metrics.value(name));
  metrics.set("sbora_sequences_running", stats.running);
  metrics.set("sbora_sequences_waiting", stats.waiting);
  metrics.set("sbora_kv_pages", stats.freePages, { state: "free" });
  metrics.set("sbora_kv_pages", stats.cachedPages, { state: "cached" });
  metrics.set("sbora_kv_pages", stats.pages - stats.freePages, { state: "held" });
  metrics.count("sbora_prompt_tokens_total", {}, stats.promptTokens);
  metrics.count("sbora_generated_tokens_total", {}, stats.decodedTokens);
  counter("sbora_preemptions_total", stats.preemptions);
  counter("sbora_swaps_total", stats.swaps);
  counter("sbora_swap_seconds_total", stats.swapMs / 1000);
  for (const event of events) {
    if (event.type === "started") metrics.count("sbora_cached_tokens_total", {}, event.cached);
  }
  if (stats.stepMs > 0) metrics.observe("sbora_step_seconds", stats.stepMs / 1000);
}
