/** The batches that are measured: made-up tokens, real lengths where it matters. */
import { type PackedBatch, planPasses } from "../../src/data/batches.ts";

/** Every token but a record's first is a label; one mean over all of them. Tokens depend on their place alone. */
export function fixedBatch(lengths: readonly number[], vocabulary: number): PackedBatch {
  const examples = lengths.map((length, id) => ({
    id,
    tokens: fixedTokens(length, vocabulary, id),
    labelFrom: 1,
  }));
  const total = lengths.reduce((sum, length) => sum + length, 0);
  return planPasses(examples, { lossMean: "token", microBatch: 1 }, total)[0]!;
}

/** `count` token ids in [0, vocabulary). */
export function fixedTokens(count: number, vocabulary: number, seed: number): Int32Array {
  return Int32Array.from(
    { length: count },
    (_, i) => (Math.imul(i + 1, 7919) + Math.imul(seed + 1, 104729)) % vocabulary,
  ).map(Math.abs);
}

/**
 * Real lengths: every 46th record of the first 3000 of LLM-Adapters' commonsense_18k.json in the protocol's prompt,
 * SmolLM2's tokenizer, end of text included.
 */
const COMMONSENSE_LENGTHS = [
  93, 109, 64, 94, 115, 93, 69, 66, 66, 64, 64, 103, 68, 135, 100, 68, 67, 64, 138, 68, 68, 115, 66, 67, 121,
  68, 88, 106, 124, 69, 65, 131, 111, 117, 65, 67, 107, 139, 65, 65, 67, 65, 94, 92, 98, 98, 97, 99, 69, 64,
  96, 65, 66, 64, 92, 112, 92, 64, 146, 65, 96, 68, 113, 90,
];
/** The paper's batch. */
const RECORDS_A_STEP = 16;

/** Lengths of the records of optimizer step `step`; they repeat after four. */
export function recordLengths(step: number): number[] {
  const steps = COMMONSENSE_LENGTHS.length / RECORDS_A_STEP;
  const first = (step % steps) * RECORDS_A_STEP;
  return COMMONSENSE_LENGTHS.slice(first, first + RECORDS_A_STEP);
}

/** Most tokens of one such step. */
export function longestRecordStep(): number {
  const steps = COMMONSENSE_LENGTHS.length / RECORDS_A_STEP;
  return Math.max(
    ...Array.from({ length: steps }, (_, i) => recordLengths(i).reduce((sum, n) => sum + n, 0)),
  );
}
