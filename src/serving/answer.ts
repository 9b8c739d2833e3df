/** Text out of the engine's tokens: each choice through its own decoder and stop filter. */
import { createStreamDecoder } from "../text/stream-decoder.ts";
import type { Generation } from "./client.ts";
import type { Serving } from "./context.ts";
import { ApiError } from "./errors.ts";
import type { FinishReason, ScoredToken } from "./protocol.ts";
import type { Usage } from "./schema.ts";
import { createStopFilter } from "./stop-strings.ts";

/** What one step added to a choice. */
export interface Delta {
  readonly choice: number;
  /** May be empty: a character is incomplete, or a stop string may be coming. */
  readonly text: string;
  readonly tokens: readonly ScoredToken[];
  readonly finish: FinishReason | null;
}

/** Counts of one request, over all its prompts and choices. */
export interface Counts {
  prompt: number;
  cached: number;
  completion: number;
}

export interface AnswerOptions {
  readonly prompt: readonly number[];
  readonly choices: number;
  readonly stops: readonly string[];
  readonly counts: Counts;
  /** Scores of the prompt's tokens, filled before the first delta. */
  readonly scores?: ScoredToken[];
}

export async function* answerDeltas(
  serving: Serving,
  generation: Generation,
  options: AnswerOptions,
): AsyncGenerator<Delta> {
  const { tokenizer, metrics } = serving;
  const { prompt, choices, stops, counts, scores } = options;
  const start = performance.now();
  const open = new Map(
    Array.from({ length: choices }, (_, choice) => {
      const decoder = createStreamDecoder(tokenizer, { skipSpecialTokens: true, after: prompt });
      return [choice, { decoder, filter: createStopFilter(stops) }];
    }),
  );
  counts.prompt += prompt.length;
  let first = true;
  try {
    for await (const event of generation.events()) {
      if (event.type === "started") counts.cached += event.cached;
      else if (event.type === "prompt") scores?.push(...event.scores);
      else if (event.type === "empty") {
        open.delete(event.choice);
        yield { choice: event.choice, text: "", tokens: [], finish: "length" };
      } else {
        const { choice, scored, finish } = event;
        const parts = open.get(choice);
        // Tokens that were under way when a stop string ended the choice.
        if (!parts) continue;
        if (first) metrics.observe("sbora_first_token_seconds", (performance.now() - start) / 1000);
        first = false;
        counts.completion++;
        const { decoder, filter } = parts;
        // An end token is no text, special or not.
        let text = filter.push(finish === "stop" ? "" : decoder.push(scored.token));
        if (finish && !filter.stopped) text += filter.push(decoder.end());
        if (finish && !filter.stopped) text += filter.end();
        const ended = filter.stopped ? "stop" : finish;
        if (ended) open.delete(choice);
        if (filter.stopped && !finish) generation.cancel(choice);
        yield { choice, text, tokens: [scored], finish: ended };
      }
    }
  } finally {
    // The reader may leave early; nothing goes on without one.
    generation.cancel();
    metrics.observe("sbora_request_seconds", (performance.now() - start) / 1000);
  }
  if (open.size > 0) {
    throw new ApiError(503, "The server is shutting down; the answer is incomplete.", "shutting_down");
  }
}

export function usageOf({ prompt, completion, cached }: Counts): Usage {
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: cached },
  };
}

/** For the request's log line: numbers only. */
export function loggedCounts({ prompt, completion, cached }: Counts): Record<string, number> {
  return { prompt_tokens: prompt, completion_tokens: completion, cached_tokens: cached };
}
