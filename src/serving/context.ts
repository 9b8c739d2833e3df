/** What every route needs. */
import type { Context } from "hono";
import type { ChatTemplate } from "../text/chat-template.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { EngineClient } from "./client.ts";
import type { LongTexts } from "./long-texts.ts";
import type { Metrics } from "./metrics.ts";
import type { Models } from "./models.ts";
import type { TokenText } from "./token-text.ts";

export interface Settings {
  /** Longest sequence, prompt and answer. */
  readonly context: number;
  /** Rows of the embedding: token ids lie below. */
  readonly vocabulary: number;
  readonly maxSequences: number;
  readonly maxBodyBytes: number;
  /** Empty: nobody is asked for a key. */
  readonly apiKeys: readonly string[];
  /** For changing adapters; empty: the API keys do. */
  readonly adminKeys: readonly string[];
  /** Origins that browsers may call from; "*": all. */
  readonly cors: readonly string[];
  /** Comments keep silent streams open, in ms. */
  readonly pingMs: number;
}

export interface Serving {
  readonly settings: Settings;
  readonly engine: EngineClient;
  readonly models: Models;
  readonly tokenizer: Tokenizer;
  readonly longTexts: LongTexts;
  readonly tokenText: TokenText;
  /** SHA-256 of the base; known once the engine is ready. */
  readonly fingerprint: () => string;
  readonly template: ChatTemplate | null;
  /** Ids that end an answer. */
  readonly eosIds: readonly number[];
  readonly metrics: Metrics;
  /** One JSON line; never with text of prompts or answers. */
  readonly log: (record: LogRecord) => void;
  /** The model and the adapters that were there at the start are loaded. */
  readonly loaded: () => boolean;
  /** No new work is taken. */
  readonly draining: () => boolean;
  /** Requests that were let in and are not answered yet; streams until they begin. */
  readonly admitted: Set<Ctx>;
}

export type LogRecord = Readonly<Record<string, string | number | boolean | null>>;

/** The part of Bun's server that routes use; absent in tests without a socket. */
interface BunServer {
  timeout(request: Request, seconds: number): void;
}

export interface Env {
  Bindings: Partial<BunServer>;
  Variables: {
    requestId: string;
    /** Goes into the request's log line. */
    record: Record<string, string | number | boolean | null>;
    /** Settles when a streamed answer has ended. */
    ended: Promise<void> | undefined;
  };
}

export type Ctx = Context<Env>;

/** Silence of a long computation must not cut the connection (Bun's default: 10 s). */
export function keepOpen(c: Ctx): void {
  c.env?.timeout?.(c.req.raw, 0);
}
