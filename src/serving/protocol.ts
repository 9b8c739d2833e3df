/**
 * The messages between the main thread, which knows text and HTTP, and the engine's Worker, which knows token ids alone
 * (design §2, settled 29). Plain objects; tokens travel in batches, one message a step.
 */
import type { Compute, MethodName } from "../adapters/adapter.ts";
import type { SamplingOptions } from "../generation/sampling.ts";
import type { Quantization } from "../model/nf4.ts";

/** Key of the base model's weight set; adapters have `name#epoch`. */
export const BASE = "";
/** Most candidates a token is reported with. */
export const MAX_LOGPROBS = 20;

export interface EngineOptions {
  /** Model folder. */
  readonly model: string;
  readonly compute: Compute;
  /** Left out: the weights as the folder has them. */
  readonly quantize?: Quantization;
  /** null: the cores this process may use. */
  readonly threads: number | null;
  /** Longest sequence, prompt and answer. */
  readonly context: number;
  /** Positions the KV cache holds over all sequences. */
  readonly kvTokens: number;
  /** Sequences that run at once with one weight set. */
  readonly maxSequences: number;
  /** Most prompt tokens of one step. */
  readonly prefillTokens: number;
  /** How long one weight set keeps the machine while others wait. */
  readonly quantumMs: number;
  readonly prefixCache: boolean;
  /** How adapters run: merged into the weights, one set at a time, or each row with its own tail. */
  readonly mode: "merged" | "unmerged";
}

export interface Submission {
  readonly id: number;
  /** Key of the weight set: the request stays with these weights to its end. */
  readonly weights: string;
  /** At least one token. */
  readonly prompt: readonly number[];
  /** Answers wanted. */
  readonly choices: number;
  readonly maxTokens: number;
  /** Tokens that end an answer. */
  readonly stopIds: readonly number[];
  readonly sampling: SamplingOptions;
  /** Report each token's log-probability and that many best candidates; null: none. */
  readonly logprobs: number | null;
  /** The same for the prompt's tokens, but for the first. */
  readonly scorePrompt: number | null;
}

/** Log-probabilities are the model's own: before temperature, penalties and filters. */
export interface ScoredToken {
  readonly token: number;
  /** null: not asked for. */
  readonly logprob: number | null;
  /** Best first. */
  readonly top: readonly (readonly [token: number, logprob: number])[];
}

export type FinishReason = "stop" | "length";

export type EngineEvent =
  /** The prompt is being computed; `cached` of its tokens came from the prefix cache. */
  | { readonly type: "started"; readonly id: number; readonly cached: number }
  /** The prompt's next tokens with their scores, in order, from its second token on. */
  | { readonly type: "prompt"; readonly id: number; readonly scores: readonly ScoredToken[] }
  /** `finish`: the answer ends with this token. */
  | {
      readonly type: "token";
      readonly id: number;
      readonly choice: number;
      readonly scored: ScoredToken;
      readonly finish: FinishReason | null;
    }
  /** An answer without tokens. */
  | { readonly type: "empty"; readonly id: number; readonly choice: number };

export interface EngineStats {
  readonly running: number;
  readonly waiting: number;
  readonly pages: number;
  readonly freePages: number;
  readonly cachedPages: number;
  /** Of this step. */
  readonly stepMs: number;
  readonly promptTokens: number;
  readonly decodedTokens: number;
  /** Counted from the start. */
  readonly preemptions: number;
  readonly swaps: number;
  readonly swapMs: number;
}

export interface EngineInfo {
  readonly fingerprint: string;
  readonly device: string;
  readonly isa: string;
  readonly threads: number;
  readonly pages: number;
}

export interface WeightSetInfo {
  /** SHA-256 of the adapter folder's files. */
  readonly hash: string;
  readonly method: MethodName;
  readonly rank: number;
  readonly modules: number;
  /** Held in memory for swapping. */
  readonly bytes: number;
  /** A sentence for whoever loads it, where it was trained on other bits of the base (4-bit or not). */
  readonly note: string | null;
}

export type ToEngine =
  | { readonly kind: "open"; readonly options: EngineOptions }
  | { readonly kind: "submit"; readonly submission: Submission }
  /** `choice` null: the whole request. */
  | { readonly kind: "cancel"; readonly id: number; readonly choice: number | null }
  | { readonly kind: "load"; readonly call: number; readonly key: string; readonly dir: string }
  /** Freed when its last request is done. */
  | { readonly kind: "unload"; readonly call: number; readonly key: string }
  | { readonly kind: "close" };

export type FromEngine =
  | { readonly kind: "ready"; readonly info: EngineInfo; readonly stats: EngineStats }
  | { readonly kind: "step"; readonly events: readonly EngineEvent[]; readonly stats: EngineStats }
  /** `refusal`: a sentence for the user, in place of a result. */
  | {
      readonly kind: "answer";
      readonly call: number;
      readonly set: WeightSetInfo | null;
      readonly refusal: string | null;
    }
  /** The engine cannot go on. `user`: the message is for the user as it is. */
  | { readonly kind: "failed"; readonly message: string; readonly user: boolean }
  | { readonly kind: "closed" };
