/** Figures of one split of MMLU: by subject (macro), by question (pooled), and how sure the letters are. */
import { letters } from "../data/mmlu.ts";
import { mean } from "../reporting/statistics.ts";
import type { Prediction } from "./run.ts";
import { type Score, scoreOf, summarize, type TaskSummary } from "./score.ts";

/** By the letters as the published code looks them up, and by those with a space where they are other tokens. */
export const mmluMeasures = ["labels", "spacedLabels"] as const;
export type MmluMeasure = (typeof mmluMeasures)[number];

/** The error is that of the number of questions. */
export type MmluAccuracy = Pick<Score, "accuracy" | "standardError">;

export interface MmluFigures {
  /** Plain mean over the subjects. */
  readonly macro: MmluAccuracy;
  /** Over all questions. */
  readonly pooled: MmluAccuracy;
  /** Mean over the subjects of −log of the right letter's share among the four: log 4 = 1.386 is knowing nothing. */
  readonly nats: number;
}

export interface MmluSummary {
  readonly questions: number;
  readonly labels: MmluFigures;
  /** null where a letter with its space is no token of its own. */
  readonly spacedLabels: MmluFigures | null;
  readonly oneLetter: OneLetter;
  readonly subjects: Readonly<Record<string, TaskSummary>>;
}

/** Predictions of every subject, by its name. */
export function summarizeMmlu(bySubject: ReadonlyMap<string, readonly Prediction[]>): MmluSummary {
  const subjects = [...bySubject].map(([name, own]) => [name, summarize(own)] as const);
  const all = [...bySubject.values()];
  return {
    questions: all.flat().length,
    labels: figuresOf(all, "labels")!,
    spacedLabels: figuresOf(all, "spacedLabels"),
    oneLetter: oneLetterOf(all.map((own) => own.map(({ label }) => label))),
    subjects: Object.fromEntries(subjects),
  };
}

function figuresOf(bySubject: readonly (readonly Prediction[])[], measure: MmluMeasure): MmluFigures | null {
  const scores = bySubject.flatMap((own) => scoreOf(own, measure) ?? []);
  const pooled = scoreOf(bySubject.flat(), measure);
  if (!pooled || scores.length < bySubject.length) return null;
  const nats = bySubject.map((own) =>
    mean(own.map((one) => (measure === "labels" ? one.labelNats : one.spacedNats) ?? Number.NaN)),
  );
  return {
    macro: {
      accuracy: mean(scores.map(({ accuracy }) => accuracy)),
      standardError: Math.hypot(...scores.map(({ standardError }) => standardError)) / scores.length,
    },
    pooled: { accuracy: pooled.accuracy, standardError: pooled.standardError },
    nats: mean(nats),
  };
}

/** What always answering the same letter would score at best, percent. */
export interface OneLetter {
  readonly letter: string;
  readonly macro: number;
  readonly pooled: number;
}

/**
 * (The most frequent letter of every single subject would be a better guess than anybody can make: of twenty questions it is
 * right in nearly two of five.) `bySubject`: the right letters.
 */
export function oneLetterOf(bySubject: readonly (readonly string[])[]): OneLetter {
  const share = (labels: readonly string[], letter: string): number =>
    (100 * labels.filter((label) => label === letter).length) / labels.length;
  const guesses = letters.map((letter) => ({
    letter,
    macro: mean(bySubject.map((labels) => share(labels, letter))),
    pooled: share(bySubject.flat(), letter),
  }));
  return guesses.reduce((best, guess) => (guess.macro > best.macro ? guess : best));
}
