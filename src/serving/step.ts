/** What a step computes, and what it tells: the chunks through the model, tokens and scores out of their last rows. */
import { withScratch } from "../adapters/draw.ts";
import { samplingKey, uniformAt } from "../generation/sampling.ts";
import { type Chunk, inferRows } from "../model/infer.ts";
import { forkSequence } from "../model/kv-cache.ts";
import type { Llama } from "../model/model.ts";
import type { Arena } from "../native/arena.ts";
import type { EngineEvent, FinishReason, ScoredToken } from "./protocol.ts";
import { answerRows, type RowQuery } from "./sampler.ts";
import { addFork, endSequence, type PlannedChunk, rememberPages, type Scheduler } from "./scheduler.ts";
import { forkedSequence, remaining, type Sequence } from "./sequence.ts";

interface Work {
  readonly model: Llama;
  readonly scheduler: Scheduler;
  readonly arena: Arena;
  /** Rows of logits at once. */
  readonly logitRows: number;
}

/** Runs the chunks as one batch and appends to `events` what came of it. @returns tokens of prompts, tokens of answers */
export function computeStep(
  work: Work,
  planned: readonly PlannedChunk[],
  events: EngineEvent[],
): { prompt: number; decoded: number } {
  const { model, scheduler, arena, logitRows } = work;
  const chunks = planned.map(({ sequence, count }) => {
    const start = sequence.kv.length;
    const tokens = sequence.tokens.slice(start, start + count);
    return { sequence, start, tokens, ...rowsOf(sequence, start, count) };
  });
  const queries = chunks.flatMap((chunk) => chunk.queries);
  const answers = withScratch(arena, () => {
    const batch = chunks.map(
      ({ sequence, tokens, wanted }): Chunk => ({ sequence: sequence.kv, tokens, wanted }),
    );
    const hidden = inferRows(model, scheduler.pool, batch, arena);
    return queries.length > 0 ? answerRows(model, hidden, queries, arena, logitRows) : [];
  });
  let prompt = 0;
  let decoded = 0;
  let row = 0;
  for (const { sequence, start, tokens, queries: own } of chunks) {
    rememberPages(scheduler, sequence, start);
    prompt += Math.min(tokens.length, Math.max(0, sequence.submission.prompt.length - start));
    const told = answers.slice(row, row + own.length);
    row += own.length;
    tellScores(sequence, start, told.slice(0, own.filter(({ target }) => target !== null).length), events);
    if (remaining(sequence) > 0) continue;
    decoded += tellTokens(scheduler, sequence, told.at(-1) ?? [], events);
  }
  return { prompt, decoded };
}

/** The rows of a chunk whose logits are needed: the last one of all tokens, or each of a prompt that is scored. */
function rowsOf(
  sequence: Sequence,
  start: number,
  count: number,
): { wanted: Chunk["wanted"]; queries: RowQuery[] } {
  const { submission, tokens, scored, forks, counts, key } = sequence;
  const { prompt, scorePrompt, sampling, logprobs, maxTokens } = submission;
  const end = start + count;
  const position = tokens.length - prompt.length;
  const common = { sampling, counts, prompt };
  const queries: RowQuery[] = [];
  const scoring = scorePrompt !== null && scored < prompt.length - 1;
  if (scoring) {
    for (const target of prompt.slice(start + 1, end + 1)) {
      queries.push({ ...common, target, draws: [], report: scorePrompt });
    }
  }
  if (end === tokens.length && (maxTokens > 0 || scoring)) {
    const others = Array.from({ length: forks }, (_, i) => samplingKey(sampling.seed, i + 1));
    const draws = maxTokens > 0 ? [key, ...others].map((k) => uniformAt(k, position)) : [];
    queries.push({ ...common, target: null, draws, report: logprobs });
  }
  return { wanted: scoring ? "all" : queries.length > 0 ? "last" : "none", queries };
}

/** Scores of the prompt's tokens from start + 1 on, those already told left out. */
function tellScores(
  sequence: Sequence,
  start: number,
  answers: readonly (readonly ScoredToken[])[],
  events: EngineEvent[],
): void {
  const scores = answers.flat().slice(Math.max(0, sequence.scored - start));
  if (scores.length === 0) return;
  sequence.scored += scores.length;
  events.push({ type: "prompt", id: sequence.submission.id, scores });
}

/** Appends the drawn tokens, one to the sequence and one to each answer that forks off here. @returns their number */
function tellTokens(
  scheduler: Scheduler,
  sequence: Sequence,
  drawn: readonly ScoredToken[],
  events: EngineEvent[],
): number {
  const { submission, forks } = sequence;
  if (submission.maxTokens === 0) {
    for (let choice = 0; choice < submission.choices; choice++) {
      events.push({ type: "empty", id: submission.id, choice });
    }
    endSequence(scheduler, sequence);
    return 0;
  }
  sequence.forks = 0;
  const others = Array.from({ length: forks }, (_, i) => {
    const fork = forkedSequence(sequence, i + 1, forkSequence(scheduler.pool, sequence.kv));
    addFork(scheduler, fork);
    return fork;
  });
  [sequence, ...others].forEach((one, i) => {
    const scored = drawn[i]!;
    const finish = append(one, scored.token);
    events.push({ type: "token", id: submission.id, choice: one.choice, scored, finish });
    if (finish) endSequence(scheduler, one);
  });
  return drawn.length;
}

function append({ submission, tokens, counts }: Sequence, token: number): FinishReason | null {
  tokens.push(token);
  counts.set(token, (counts.get(token) ?? 0) + 1);
  if (submission.stopIds.includes(token)) return "stop";
  return tokens.length - submission.prompt.length === submission.maxTokens ? "length" : null;
}
