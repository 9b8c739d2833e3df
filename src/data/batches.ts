/**
 * From examples to the packed batches a pass computes: which records an optimizer step takes, and whole records one
 * behind the other without padding. How a step is cut into passes never changes its loss: the weight of every label is
 * settled before the cutting (settled 13).
 */
import type { TrainingExample } from "./examples.ts";
import { epochOrder } from "./shuffle.ts";

export type { TrainingExample } from "./examples.ts";

/** B whole records in T packed tokens, M of which carry a label. */
export interface PackedBatch {
  /** [T] */
  readonly tokens: Int32Array;
  /** [T], from 0 within every record. */
  readonly positions: Int32Array;
  /** [B+1]: record b is the tokens cuSeqlens[b] .. cuSeqlens[b+1]-1. */
  readonly cuSeqlens: Int32Array;
  /** [T], number of the token's record in its file: the dropout masks' word (settled 11). */
  readonly recordIds: Int32Array;
  /** [M], the row whose output predicts the label, ascending. */
  readonly labelRows: Int32Array;
  /** [M], token ids. */
  readonly labels: Int32Array;
  /** [M]; the step's loss is Σ weight · negative log-likelihood over all its passes. */
  readonly labelWeights: Float32Array;
}

/** What of a recipe decides which records a step takes, and how they count. */
export interface BatchOptions {
  /** Records an optimizer step. */
  readonly batch: number;
  /** Records a micro-batch, a divisor of `batch`. */
  readonly microBatch: number;
  readonly epochs: number;
  readonly seed: number;
  readonly shuffle: boolean;
}

/** `micro`: mean over micro-batches of each one's token mean (protocol §2.1). `token`: one mean over all labels. */
export interface LossMean {
  readonly lossMean: "micro" | "token";
  readonly microBatch: number;
}

/**
 * Optimizer steps of one epoch over n records: floor(ceil(n / micro) / accumulation), as protocol §2.1 counts. The
 * micro-batches left over are dropped; fewer records than one batch make one step.
 */
export function stepsPerEpoch(
  n: number,
  { batch, microBatch }: Pick<BatchOptions, "batch" | "microBatch">,
): number {
  if (n === 0) return 0;
  return Math.max(1, Math.floor(Math.ceil(n / microBatch) / accumulation(batch, microBatch)));
}

/** The records of optimizer step `step` (from 0), in their order; every epoch has an order of its own. */
export function stepExamples(
  train: readonly TrainingExample[],
  recipe: Omit<BatchOptions, "epochs">,
  step: number,
): TrainingExample[] {
  const steps = stepsPerEpoch(train.length, recipe);
  if (steps === 0) return [];
  const epoch = Math.floor(step / steps);
  const size = recipe.microBatch * accumulation(recipe.batch, recipe.microBatch);
  const first = (step - epoch * steps) * size;
  const order = orderOf(train.length, recipe.seed, epoch, recipe.shuffle);
  return [...order.subarray(first, first + size)].map((i) => train[i]!);
}

function accumulation(batch: number, microBatch: number): number {
  return Math.max(1, Math.floor(batch / microBatch));
}

/** The order of the epoch that is running; an order is drawn once an epoch, not once a step. */
let current: { readonly key: string; readonly order: Uint32Array } | null = null;

function orderOf(n: number, seed: number, epoch: number, shuffle: boolean): Uint32Array {
  const key = `${n} ${seed} ${epoch} ${shuffle}`;
  if (current?.key !== key) current = { key, order: epochOrder(n, seed, epoch, shuffle) };
  return current.order;
}

/**
 * Packs the records of one step, in order, into passes of at most `maxTokens` tokens. Records without a label (cut
 * before their reply) are left out: they have no loss.
 */
export function planPasses(
  examples: readonly TrainingExample[],
  mean: LossMean,
  maxTokens: number,
): PackedBatch[] {
  const weights = labelWeights(examples, mean);
  const passes: PackedBatch[] = [];
  let members: Weighted[] = [];
  let tokens = 0;
  examples.forEach((example, i) => {
    const { length } = example.tokens;
    if (labelsOf(example) === 0) return;
    if (length > maxTokens) {
      throw new Error(`record ${example.id} has ${length} tokens, a pass was planned for ${maxTokens}`);
    }
    if (tokens + length > maxTokens) {
      passes.push(pack(members));
      members = [];
      tokens = 0;
    }
    members.push({ example, weight: weights[i]! });
    tokens += length;
  });
  if (members.length > 0) passes.push(pack(members));
  return passes;
}

interface Weighted {
  readonly example: TrainingExample;
  /** Of each of its labels. */
  readonly weight: number;
}

function labelsOf({ tokens, labelFrom }: TrainingExample): number {
  return Math.max(0, tokens.length - labelFrom);
}

/** Weight of one label of every record; over all labels of the step they add up to 1. */
function labelWeights(examples: readonly TrainingExample[], { lossMean, microBatch }: LossMean): number[] {
  const groupOf = (i: number): number => (lossMean === "token" ? 0 : Math.floor(i / microBatch));
  const counts: number[] = [];
  examples.forEach((example, i) => {
    counts[groupOf(i)] = (counts[groupOf(i)] ?? 0) + labelsOf(example);
  });
  const labelled = counts.filter((count) => count > 0).length;
  return examples.map((_, i) => 1 / (labelled * counts[groupOf(i)]!));
}

function pack(members: readonly Weighted[]): PackedBatch {
  const T = members.reduce((sum, { example }) => sum + example.tokens.length, 0);
  const M = members.reduce((sum, { example }) => sum + labelsOf(example), 0);
  const batch: PackedBatch = {
    tokens: new Int32Array(T),
    positions: new Int32Array(T),
    cuSeqlens: new Int32Array(members.length + 1),
    recordIds: new Int32Array(T),
    labelRows: new Int32Array(M),
    labels: new Int32Array(M),
    labelWeights: new Float32Array(M),
  };
  let row = 0;
  let label = 0;
  members.forEach(({ example, weight }, b) => {
    const { id, tokens, labelFrom } = example;
    batch.tokens.set(tokens, row);
    batch.recordIds.fill(id, row, row + tokens.length);
    for (let p = 0; p < tokens.length; p++) batch.positions[row + p] = p;
    for (let p = labelFrom; p < tokens.length; p++, label++) {
      batch.labelRows[label] = row + p - 1;
      batch.labels[label] = tokens[p]!;
      batch.labelWeights[label] = weight;
    }
    row += tokens.length;
    batch.cuSeqlens[b + 1] = row;
  });
  return batch;
}
