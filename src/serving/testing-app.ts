/** For tests: an assembled server on the tiny model, asked without a socket. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildLibrary } from "../native/build.ts";
import { writeTinyModel } from "../training/testing.ts";
import type { LogRecord, Settings } from "./context.ts";
import { eventsIn } from "./page/events.ts";
import type { EngineOptions } from "./protocol.ts";
import { type Assembly, assemble } from "./server.ts";
import { localPort, tinyOptions, writeTinyAdapters } from "./testing.ts";

const TEMPLATE =
  "{% for m in messages %}<|start|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant:{% endif %}";

/** Token of a byte in the tiny vocabulary. */
export const byteToken = (byte: number): number => 2 + byte;

/** Makes the tiny model write small letters only, so that what it says is readable. */
export const LETTERS: Readonly<Record<string, number>> = Object.fromEntries(
  Array.from({ length: 26 }, (_, i) => [byteToken(97 + i), 60]),
);

export interface TinyFolders {
  readonly root: string;
  readonly model: string;
  readonly adapters: string;
  remove(): void;
}

/** A model folder called `tiny` with a chat template, and the adapters `fa` and `lora` beside it. */
export async function tinyFolders(): Promise<TinyFolders> {
  await buildLibrary("cpu");
  const root = mkdtempSync(join(tmpdir(), "sbora-serving-"));
  const model = join(root, "tiny");
  const adapters = join(root, "adapters");
  writeTinyModel(model);
  writeFileSync(join(model, "chat_template.jinja"), TEMPLATE);
  mkdirSync(adapters);
  await writeTinyAdapters(model, adapters, { fa: "sbora-fa", lora: "lora" });
  return { root, model, adapters, remove: () => rmSync(root, { recursive: true }) };
}

export interface TinyApp extends Assembly {
  readonly logs: LogRecord[];
  ask(path: string, body?: unknown, init?: RequestInit): Promise<Response>;
  close(): Promise<void>;
}

export const testSettings: Omit<Settings, "context" | "vocabulary" | "maxSequences"> = {
  maxBodyBytes: 64 * 1024,
  apiKeys: [],
  adminKeys: [],
  cors: [],
  pingMs: 10_000,
};

export const JSON_TYPE = { "Content-Type": "application/json" };

export interface TinyAppOptions {
  readonly settings?: Partial<typeof testSettings>;
  readonly engine?: Partial<EngineOptions>;
  readonly queue?: number;
}

/** Not waited for: it is loading. */
export function tinyApp({ model, adapters }: TinyFolders, options: TinyAppOptions = {}): TinyApp {
  const logs: LogRecord[] = [];
  const assembly = assemble(
    {
      engine: { ...tinyOptions, ...options.engine, model },
      name: null,
      adapters,
      queue: options.queue ?? 64,
      settings: { ...testSettings, ...options.settings },
      log: (record) => logs.push(record),
    },
    localPort(),
  );
  return {
    ...assembly,
    logs,
    async ask(path, body, init = {}) {
      const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
      return assembly.app.request(path, { headers: JSON_TYPE, ...post, ...init });
    },
    async close() {
      await assembly.serving.engine.close();
      assembly.serving.longTexts.close();
    },
  };
}

/** All events of a stream. */
export async function events<T>(response: Response): Promise<T[]> {
  const all: T[] = [];
  for await (const event of eventsIn<T>(response.body!)) all.push(event);
  return all;
}
