/** From predictions to figures: accuracies with their standard errors, the majority class, paired differences. */
import type { Prediction } from "./run.ts";

/**
 * What a prediction can be right by. `perCharacter` is the options' likelihood divided by their length, `spacedLabels`
 * that of MMLU's letters with a space in front.
 */
export const measures = ["generation", "options", "perCharacter", "labels", "spacedLabels"] as const;
export type Measure = (typeof measures)[number];

/** Whether a prediction is right; null where its ruler was not applied. */
export function isRight(prediction: Prediction, measure: Measure): boolean | null {
  const { label } = prediction;
  const chosen = {
    generation: () => prediction.correct,
    options: () => prediction.option && prediction.option === label,
    perCharacter: () => prediction.optionPerCharacter && prediction.optionPerCharacter === label,
    labels: () => prediction.likeliestLabel && prediction.likeliestLabel === label,
    spacedLabels: () => prediction.spacedLabel && prediction.spacedLabel === label,
  }[measure]();
  return typeof chosen === "boolean" ? chosen : null;
}

export interface Score {
  readonly measure: Measure;
  /** Records the ruler was applied to. */
  readonly n: number;
  readonly correct: number;
  /** Percent. */
  readonly accuracy: number;
  /** Binomial, in percentage points. */
  readonly standardError: number;
}

/** null when no prediction has this ruler. */
export function scoreOf(predictions: readonly Prediction[], measure: Measure): Score | null {
  const right = predictions.map((p) => isRight(p, measure)).filter((r) => r !== null);
  if (right.length === 0) return null;
  const n = right.length;
  const correct = right.filter(Boolean).length;
  const p = correct / n;
  return { measure, n, correct, accuracy: 100 * p, standardError: 100 * Math.sqrt((p * (1 - p)) / n) };
}

/** Percent of the generated responses in which an answer was found; null where nothing was generated. */
export function parsedShare(predictions: readonly Prediction[]): number | null {
  const generated = predictions.filter((p) => p.parsed !== undefined);
  if (generated.length === 0) return null;
  return (100 * generated.filter((p) => p.parsed !== "").length) / generated.length;
}

/** The most frequent answer (the first of equals by name) and what always saying it would score, in percent. */
export function majority(labels: readonly string[]): { readonly label: string; readonly accuracy: number } {
  const counts = new Map<string, number>();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  const [best] = [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1));
  return best ? { label: best[0], accuracy: (100 * best[1]) / labels.length } : { label: "", accuracy: 0 };
}

export interface PairedDifference {
  /** Records that both have. */
  readonly n: number;
  /** Accuracy of a minus accuracy of b, percentage points. */
  readonly difference: number;
  /** Of the difference, from the spread of the records' own differences. */
  readonly standardError: number;
  /** Records that only a got right, and only b. */
  readonly onlyA: number;
  readonly onlyB: number;
}

/** Compares two models on the records both answered: much sharper than two accuracies with an error each. */
export function pairedDifference(
  a: readonly Prediction[],
  b: readonly Prediction[],
  measure: Measure,
): PairedDifference | null {
  const others = new Map(b.map((prediction) => [prediction.record, prediction]));
  const differences = a.flatMap((prediction) => {
    const other = others.get(prediction.record);
    const [left, right] = [isRight(prediction, measure), other ? isRight(other, measure) : null];
    return left === null || right === null ? [] : [Number(left) - Number(right)];
  });
  const n = differences.length;
  if (n === 0) return null;
  const mean = differences.reduce((sum, d) => sum + d, 0) / n;
  const squares = differences.reduce((sum, d) => sum + (d - mean) ** 2, 0);
  return {
    n,
    difference: 100 * mean,
    standardError: n > 1 ? 100 * Math.sqrt(squares / (n - 1) / n) : Number.NaN,
    onlyA: differences.filter((d) => d > 0).length,
    onlyB: differences.filter((d) => d < 0).length,
  };
}

/** What a table says about one task. */
export interface TaskSummary {
  readonly n: number;
  readonly majority: { readonly label: string; readonly accuracy: number };
  /** Percent of the generated responses that hold an answer; null where nothing was generated. */
  readonly parsed: number | null;
  readonly scores: Readonly<Partial<Record<Measure, Score>>>;
}

export function summarize(predictions: readonly Prediction[]): TaskSummary {
  const scores = measures.flatMap((measure) => {
    const score = scoreOf(predictions, measure);
    return score ? [[measure, score] as const] : [];
  });
  return {
    n: predictions.length,
    majority: majority(predictions.map((p) => p.label)),
    parsed: parsedShare(predictions),
    scores: Object.fromEntries(scores),
  };
}
