/** From the fields of a request to what the engine is asked for. */
import { greedy, type SamplingOptions } from "../generation/sampling.ts";
import type { Generation } from "./client.ts";
import type { Serving } from "./context.ts";
import { ApiError, badRequest } from "./errors.ts";
import type { Submission } from "./protocol.ts";
import type { SamplingFields } from "./schema.ts";

export type Wish = Omit<Submission, "id">;

/** What choices of one request have in common. */
export interface Common {
  readonly choices: number;
  readonly stopIds: readonly number[];
  readonly stops: readonly string[];
  readonly sampling: SamplingOptions;
}

/** @throws ApiError naming the field */
export function commonOf(serving: Serving, fields: SamplingFields): Common {
  const { vocabulary, maxSequences } = serving.settings;
  const choices = fields.n ?? 1;
  if (choices > maxSequences) {
    throw badRequest(`n is ${choices}; this server runs at most ${maxSequences} answers at once.`, "n");
  }
  const logitBias = Object.entries(fields.logit_bias ?? {}).map(([id, bias]): [number, number] => [
    Number(id),
    bias,
  ]);
  requireIds(
    logitBias.map(([id]) => id),
    vocabulary,
    "logit_bias",
  );
  const own = fields.stop_token_ids ?? [];
  requireIds(own, vocabulary, "stop_token_ids");
  const stop = fields.stop ?? [];
  return {
    choices,
    stopIds: fields.ignore_eos ? own : [...new Set([...serving.eosIds, ...own])],
    stops: typeof stop === "string" ? [stop] : stop,
    sampling: {
      ...greedy,
      temperature: fields.temperature ?? 1,
      topP: fields.top_p ?? 1,
      topK: Math.max(0, fields.top_k ?? 0),
      minP: fields.min_p ?? 0,
      presencePenalty: fields.presence_penalty ?? 0,
      frequencyPenalty: fields.frequency_penalty ?? 0,
      repetitionPenalty: fields.repetition_penalty ?? 1,
      logitBias,
      seed: fields.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!,
    },
  };
}

function requireIds(ids: readonly number[], vocabulary: number, param: string): void {
  const bad = ids.find((id) => id >= vocabulary);
  if (bad === undefined) return;
  throw badRequest(`Token ${bad} is outside the vocabulary of ${vocabulary} tokens.`, param);
}

/** `maxTokens` null: as many as there is room for. @returns the limit @throws ApiError */
export function checkPrompt(
  { settings }: Serving,
  prompt: readonly number[],
  maxTokens: number | null,
  param: string,
): number {
  const { context, vocabulary } = settings;
  if (prompt.length === 0) {
    throw badRequest("The prompt has no tokens; there is nothing to continue.", param, "empty_prompt");
  }
  requireIds(prompt, vocabulary, param);
  const wanted = maxTokens ?? 1;
  if (prompt.length + wanted > context) {
    throw badRequest(
      `This model takes at most ${context} tokens; the prompt has ${prompt.length}, and ${wanted} more are asked for. ` +
        "Shorten the prompt or lower max_tokens.",
      param,
      "context_length_exceeded",
    );
  }
  return maxTokens ?? context - prompt.length;
}

/** @throws ApiError 429 when the queue is full */
export function submit(serving: Serving, wishes: readonly Wish[]): Generation[] {
  const { engine, metrics, settings } = serving;
  const generations = engine.submit(wishes);
  if (generations) return generations;
  const waiting = engine.outstanding() / settings.maxSequences;
  const seconds = Math.min(60, Math.max(1, Math.round(waiting)));
  metrics.set("sbora_requests_outstanding", engine.outstanding());
  throw new ApiError(
    429,
    `The queue is full (${engine.outstanding()} requests); try again in ${seconds} s.`,
    "queue_full",
    null,
    { "Retry-After": String(seconds) },
  );
}
