/**
 * One token out of a row of logits. The kernel hands over the best candidates of the tempered row; they decide nearly
 * always, and where they do not the whole row does. A draw depends on the request's seed and the token's position only,
 * never on what else is in the batch. Filters in the order of transformers: top-k, top-p over what is left, min-p.
 */
import { philox } from "../native/philox.ts";
import { streamKey } from "../native/streams.ts";

export interface SamplingOptions {
  /** 0: the best token, always. */
  readonly temperature: number;
  /** Smallest set of tokens with at least this much of the probability; 1: all. */
  readonly topP: number;
  /** Most tokens to choose from; 0: all. */
  readonly topK: number;
  /** Least probability relative to the best token's; 0: all. */
  readonly minP: number;
  /** Taken off once for every token the answer holds already. */
  readonly presencePenalty: number;
  /** Taken off for each time the answer holds a token. */
  readonly frequencyPenalty: number;
  /** Divides (positive) or multiplies (negative) logits of tokens of prompt and answer; 1: none. */
  readonly repetitionPenalty: number;
  /** Added to the logits of these tokens. */
  readonly logitBias: readonly (readonly [token: number, bias: number])[];
  readonly seed: number;
}

export const greedy: SamplingOptions = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  seed: 0,
};

/** Below this a temperature counts as 0: the scaled logits would leave f32's useful range. */
const LEAST_TEMPERATURE = 1e-4;

export function isGreedy({ temperature }: SamplingOptions): boolean {
  return temperature < LEAST_TEMPERATURE;
}

/** Whether `adjustLogits` has anything to do. */
export function adjustsLogits(options: SamplingOptions): boolean {
  const { presencePenalty, frequencyPenalty, repetitionPenalty, logitBias } = options;
  return presencePenalty !== 0 || frequencyPenalty !== 0 || repetitionPenalty !== 1 || logitBias.length > 0;
}

/** Penalties and biases, in place. `generated`: how often the answer holds a token; `prompt`: tokens of the prompt. */
export function adjustLogits(
  logits: Float32Array,
  options: SamplingOptions,
  generated: ReadonlyMap<number, number>,
  prompt: Iterable<number>,
): void {
  const { presencePenalty, frequencyPenalty, repetitionPenalty, logitBias } = options;
  if (repetitionPenalty !== 1) {
    for (const token of new Set([...prompt, ...generated.keys()])) {
      const logit = logits[token]!;
      logits[token] = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    }
  }
  for (const [token, count] of generated) logits[token]! -= presencePenalty + frequencyPenalty * count;
  for (const [token, bias] of logitBias) logits[token]! += bias;
}

/** Key of one choice's draws. */
export function samplingKey(seed: number, choice: number): bigint {
  return streamKey(seed, "sampling", choice);
}

/** Uniform in [0, 1) with 53 bits: the draw of the answer's token number `position`. */
export function uniformAt(key: bigint, position: number): number {
  const [a, b] = philox([position, 0, 0, 0], key);
  return ((a! >>> 5) * 2 ** 26 + (b! >>> 6)) / 2 ** 53;
}

/** The best tokens of a row, descending, ties to the lower id; log-probabilities of the tempered row over all tokens. */
export interface Candidates {
  readonly ids: ArrayLike<number>;
  readonly logProbabilities: ArrayLike<number>;
}

/** How many candidates `pick` wants to see; the ABI's limit. */
export const WANTED_CANDIDATES = 256;

/** @returns the token that `u` falls on, or null where the candidates alone do not decide (`complete`: they are all). */
export function pick(
  options: SamplingOptions,
  { ids, logProbabilities }: Candidates,
  complete: boolean,
  u: number,
): number | null {
  if (isGreedy(options)) return ids[0]!;
  const { topK, topP, minP } = options;
  const weights = new Float64Array(logProbabilities.length);
  for (let i = 0; i < weights.length; i++) weights[i] = Math.exp(logProbabilities[i]!);
  const limited = topK > 0 && topK <= weights.length;
  if (topK > weights.length && !complete) return null;
  const list = limited ? weights.subarray(0, topK) : weights;
  const whole = limited || complete;
  const kept = keep(list, whole ? sum(list) : 1, topP, minP);
  // Nothing was cut off, but there are more tokens: their share is known only while no filter may still cut.
  const open = kept === list.length && !whole;
  if (open && (topP < 1 || minP > 0)) return null;
  const at = walk(list.subarray(0, kept), u * (open ? 1 : sum(list.subarray(0, kept))));
  if (at < kept) return ids[at]!;
  return open ? null : ids[kept - 1]!;
}

/** As `pick`, from the whole tempered row of logits. */
export function pickFromRow(options: SamplingOptions, logits: Float32Array, u: number): number {
  const ids = descending(logits);
  const best = logits[ids[0]!]!;
  const logProbabilities = new Float64Array(ids.length);
  for (let i = 0; i < ids.length; i++) logProbabilities[i] = logits[ids[i]!]! - best;
  return pick(options, { ids, logProbabilities }, true, u)!;
}

/** Room for a token's id below its logit in the 53 bits of a number. */
const MAX_VOCABULARY = 2 ** 21;

/**
 * Token ids, the largest logit first, ties to the lower id. As keys of one number each, logit above id, the engine sorts a
 * row of 50,000 in a millisecond; by a function that compares it takes fifty, and one token in twenty at temperature 1
 * needs the row.
 */
function descending(logits: Float32Array): Uint32Array {
  const bits = new Uint32Array(logits.buffer, logits.byteOffset, logits.length);
  const keys = new Float64Array(logits.length);
  for (let i = 0; i < keys.length; i++) {
    const b = bits[i]!;
    // Ascending where the logit descends; both zeros alike.
    keys[i] = (b > 0x80000000 ? b : 0x7fffffff - (b & 0x7fffffff)) * MAX_VOCABULARY + i;
  }
  keys.sort();
  const ids = new Uint32Array(keys.length);
  for (let i = 0; i < ids.length; i++) ids[i] = keys[i]! % MAX_VOCABULARY;
  return ids;
}

/** Length of the prefix that top-p and min-p leave; `total` is the weight of all tokens to choose from. */
function keep(weights: Float64Array, total: number, topP: number, minP: number): number {
  let kept = weights.length;
  if (topP < 1) {
    const reached = walk(weights, topP * total, true);
    kept = Math.min(kept, reached + 1);
  }
  if (minP > 0) {
    const below = weights.findIndex((w) => w < minP * weights[0]!);
    if (below >= 0) kept = Math.min(kept, below);
  }
  return Math.max(1, kept);
}

/** Index of the weight at which the running sum first exceeds `target` (`orEqual`: reaches it); the length if never. */
function walk(weights: Float64Array, target: number, orEqual = false): number {
  let running = 0;
  for (let i = 0; i < weights.length; i++) {
    running += weights[i]!;
    if (running > target || (orEqual && running === target)) return i;
  }
  return weights.length;
}

function sum(weights: Float64Array): number {
  let total = 0;
  for (const weight of weights) total += weight;
  return total;
}
