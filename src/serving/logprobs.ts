/** Log-probability reports in the two shapes of OpenAI's API. */
import { createStreamDecoder } from "../text/stream-decoder.ts";
import type { Serving } from "./context.ts";
import type { ScoredToken } from "./protocol.ts";
import type { ChatLogprobs, CompletionLogprobs } from "./schema.ts";

export function chatLogprobs({ tokenText }: Serving, tokens: readonly ScoredToken[]): ChatLogprobs {
  const entry = (
    id: number,
    logprob: number,
  ): { token: string; logprob: number; bytes: number[] | null } => ({
    token: tokenText.text(id),
    logprob,
    bytes: tokenText.bytes(id),
  });
  const content = tokens.map(({ token, logprob, top }) => ({
    ...entry(token, logprob ?? 0),
    top_logprobs: top.map(([id, value]) => entry(id, value)),
  }));
  return { content, refusal: null };
}

/** The legacy shape, piece by piece; offsets count characters of the whole text. */
export interface LegacyLogprobs {
  /** A token without a score is a prompt's first. `specials`: whether special tokens stand in the text. */
  push(tokens: readonly ScoredToken[], specials: boolean): void;
  /** What was pushed since the last call. */
  take(): CompletionLogprobs;
}

export function legacyLogprobs({ tokenizer, tokenText }: Serving, after: readonly number[]): LegacyLogprobs {
  const decoder = createStreamDecoder(tokenizer, { after });
  let offset = 0;
  let pending = empty();
  return {
    push(tokens, specials) {
      for (const { token, logprob, top } of tokens) {
        pending.tokens.push(tokenText.text(token));
        pending.token_logprobs.push(logprob);
        pending.top_logprobs.push(logprob === null ? null : candidates(tokenText.text, token, logprob, top));
        pending.text_offset.push(offset);
        if (specials || !tokenizer.isSpecial(token)) offset += decoder.push(token).length;
      }
    },
    take() {
      const taken = pending;
      pending = empty();
      return taken;
    },
  };
}

/** The token itself is always among them, as clients compare its value with the best one's. */
function candidates(
  text: (id: number) => string,
  token: number,
  logprob: number,
  top: ScoredToken["top"],
): Record<string, number> {
  const all = new Map<string, number>();
  // Several tokens may read the same: the best of them counts.
  for (const [id, value] of [...top, [token, logprob] as const]) {
    all.set(text(id), Math.max(value, all.get(text(id)) ?? Number.NEGATIVE_INFINITY));
  }
  return Object.fromEntries(all);
}

function empty(): CompletionLogprobs {
  return { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
}
