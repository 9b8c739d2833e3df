/** Hidden states to tokens with their scores: logits stay on the device but for rows that need all of them. */
import { withScratch } from "../adapters/draw.ts";
import {
  adjustLogits,
  adjustsLogits,
  type Candidates,
  isGreedy,
  pick,
  pickFromRow,
  type SamplingOptions,
  WANTED_CANDIDATES,
} from "../generation/sampling.ts";
import { logitsOf } from "../model/infer.ts";
import type { Llama } from "../model/model.ts";
import { type Arena, arenaTensor } from "../native/arena.ts";
import { scaleRows, topkLogSoftmax } from "../native/ops/index.ts";
import { readF32, readI32, type Tensor, view, writeF32 } from "../native/tensor.ts";
import type { ScoredToken } from "./protocol.ts";

/** What is asked of one row: tokens drawn behind it, or the score of a token that is known to follow. */
export interface RowQuery {
  /** The token that follows, to be scored; null: tokens are drawn. */
  readonly target: number | null;
  /** One uniform number in [0, 1) for each token to be drawn. */
  readonly draws: readonly number[];
  readonly sampling: SamplingOptions;
  /** How often the answer so far holds a token. */
  readonly counts: ReadonlyMap<number, number>;
  readonly prompt: readonly number[];
  /** Best candidates to report beside the log-probability; null: no report. */
  readonly report: number | null;
}

/** Best tokens of each row, `k` a row. */
interface Best {
  readonly k: number;
  readonly values: Float32Array;
  readonly ids: Int32Array;
}

/** Tokens for each row of hidden[R,H], at most `blockRows` rows of logits at a time. */
export function answerRows(
  model: Llama,
  hidden: Tensor,
  queries: readonly RowQuery[],
  arena: Arena,
  blockRows: number,
): ScoredToken[][] {
  const H = hidden.shape[1]!;
  const answers: ScoredToken[][] = [];
  for (let first = 0; first < queries.length; first += blockRows) {
    const block = queries.slice(first, first + blockRows);
    withScratch(arena, () => {
      const rows = view(model.device, hidden, first * H, [block.length, H]);
      answers.push(...answerBlock(model, logitsOf(model, rows, arena), block, arena));
    });
  }
  return answers;
}

function answerBlock(
  model: Llama,
  logits: Tensor,
  queries: readonly RowQuery[],
  arena: Arena,
): ScoredToken[][] {
  const raw = bestOf(model, logits, Math.max(1, ...queries.map((q) => q.report ?? 0)), arena);
  // Tempering changes the logits in place; reports are about them as they are now.
  const reports = queries.map((query, row) => reporter(model, logits, raw, query, row));
  const tempered = queries.some(isTempered) ? temper(model, logits, queries, arena) : null;
  return queries.map((query, row) => {
    const tokens =
      query.target !== null
        ? [query.target]
        : isTempered(query)
          ? drawn(model, logits, tempered!, query, row)
          : query.draws.map(() => raw.ids[row * raw.k]!);
    return tokens.map(reports[row]!);
  });
}

function isTempered({ target, sampling }: RowQuery): boolean {
  return target === null && (!isGreedy(sampling) || adjustsLogits(sampling));
}

/** Scores tokens of one row of the model's own distribution. */
function reporter(
  model: Llama,
  logits: Tensor,
  raw: Best,
  query: RowQuery,
  row: number,
): (token: number) => ScoredToken {
  const { report } = query;
  if (report === null) return (token) => ({ token, logprob: null, top: [] });
  const V = model.config.vocabSize;
  const start = row * raw.k;
  // A neighbour's longer list must not decide by which of the two formulas a token is scored.
  const listed = Array.from({ length: Math.max(1, report) }, (_, i): [number, number] => [
    raw.ids[start + i]!,
    raw.values[start + i]!,
  ]);
  const [best, bestValue] = listed[0]!;
  const whole = isTempered(query) ? readF32(model.device, view(model.device, logits, row * V, [V])) : null;
  const logit = (token: number): number =>
    whole ? whole[token]! : readF32(model.device, view(model.device, logits, row * V + token, [1]))[0]!;
  return (token) => {
    const known = listed.find(([id]) => id === token);
    // log p(token) = log p(best) + logit(token) − logit(best)
    const logprob = known ? known[1] : bestValue + logit(token) - logit(best);
    return { token, logprob, top: listed.slice(0, report) };
  };
}

/** Penalties, biases and temperature on the rows that have them; the best of every row afterwards. */
function temper(model: Llama, logits: Tensor, queries: readonly RowQuery[], arena: Arena): Best {
  const { device } = model;
  const V = model.config.vocabSize;
  queries.forEach((query, row) => {
    if (query.target !== null || !adjustsLogits(query.sampling)) return;
    const one = view(device, logits, row * V, [V]);
    const values = readF32(device, one);
    adjustLogits(values, query.sampling, query.counts, query.prompt);
    writeF32(device, one, values);
  });
  const factors = queries.map((query) =>
    isTempered(query) && !isGreedy(query.sampling) ? 1 / query.sampling.temperature : 1,
  );
  const inverse = arenaTensor(arena, "f32", [queries.length]);
  writeF32(device, inverse, Float32Array.from(factors));
  scaleRows(device, logits, inverse, logits);
  return bestOf(model, logits, Math.max(...queries.map((q) => wantedCandidates(q, V))), arena);
}

/** Candidates that a row's own draw looks at, whatever its neighbours want. */
function wantedCandidates(query: RowQuery, vocabulary: number): number {
  const { sampling } = query;
  if (!isTempered(query) || isGreedy(sampling)) return 1;
  const wanted = sampling.topK > 0 ? Math.min(sampling.topK, WANTED_CANDIDATES) : WANTED_CANDIDATES;
  return Math.min(wanted, vocabulary);
}

function drawn(model: Llama, logits: Tensor, best: Best, query: RowQuery, row: number): number[] {
  const V = model.config.vocabSize;
  const count = wantedCandidates(query, V);
  const start = row * best.k;
  const candidates: Candidates = {
    ids: best.ids.subarray(start, start + count),
    logProbabilities: best.values.subarray(start, start + count),
  };
  let whole: Float32Array | null = null;
  return query.draws.map((u) => {
    const token = pick(query.sampling, candidates, count === V, u);
    if (token !== null) return token;
    whole ??= readF32(model.device, view(model.device, logits, row * V, [V]));
    return pickFromRow(query.sampling, whole, u);
  });
}

function bestOf(model: Llama, logits: Tensor, k: number, arena: Arena): Best {
  return withScratch(arena, () => {
    const rows = logits.shape[0]!;
    const values = arenaTensor(arena, "f32", [rows, k]);
    const ids = arenaTensor(arena, "i32", [rows, k]);
    topkLogSoftmax(model.device, logits, values, ids);
    return { k, values: readF32(model.device, values), ids: readI32(model.device, ids) };
  });
}
