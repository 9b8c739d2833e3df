/** Rows of a table from its cells: means over seeds, standard errors, paired differences. Numbers only, no layout. */
import type { Prediction } from "../src/evaluation/run.ts";
import { type Measure, pairedDifference } from "../src/evaluation/score.ts";
import type { CellFile, StoredPrediction } from "./cell-file.ts";

/** A finished cell with its predictions. */
export interface Outcome {
  readonly cell: CellFile;
  readonly predictions: readonly StoredPrediction[];
}

/** A mean, and what is known of its error. */
export interface Figure {
  readonly value: number;
  /** From the number of records, in the figure's own unit. */
  readonly standardError: number;
  /** Standard deviation over seeds; null with one seed. */
  readonly seedDeviation: number | null;
}

/** All seeds of one method and rank. */
export interface Row {
  /** Method name, or "base". */
  readonly method: string;
  readonly rank: number;
  readonly outcomes: readonly Outcome[];
}

/** Cells of equal method and rank are one row; rows in the order of their first cell. */
export function rowsOf(outcomes: readonly Outcome[]): Row[] {
  const rows = new Map<string, { method: string; rank: number; outcomes: Outcome[] }>();
  for (const outcome of outcomes) {
    const { training } = outcome.cell.recipe;
    const method = training?.method ?? "base";
    const rank = training?.rank ?? 0;
    const row = rows.get(`${method} ${rank}`) ?? { method, rank, outcomes: [] };
    row.outcomes.push(outcome);
    rows.set(`${method} ${rank}`, row);
  }
  return [...rows.values()];
}

/** Accuracy on one task, percent; null where the set or the ruler is missing. */
export function taskFigure(row: Row, task: string, measure: Measure): Figure | null {
  const scores = row.outcomes.map(({ cell }) => cell.tasks.sets[task]?.scores[measure]);
  const present = scores.filter((score) => score !== undefined);
  if (present.length === 0 || present.length < scores.length) return null;
  return {
    value: mean(present.map((score) => score.accuracy)),
    // The records are the same for every seed: more seeds do not make this error smaller.
    standardError: mean(present.map((score) => score.standardError)),
    seedDeviation: deviation(present.map((score) => score.accuracy)),
  };
}

/** Plain mean over the tasks that are there, as the protocol averages. */
export function averageFigure(row: Row, tasks: readonly string[], measure: Measure): Figure | null {
  const figures = tasks.map((task) => taskFigure(row, task, measure)).filter((figure) => figure !== null);
  if (figures.length === 0) return null;
  const perSeed = row.outcomes.map(({ cell }) => {
    const scores = tasks.map((task) => cell.tasks.sets[task]?.scores[measure]?.accuracy);
    return mean(scores.filter((score) => score !== undefined));
  });
  return {
    value: mean(figures.map(({ value }) => value)),
    standardError: Math.hypot(...figures.map(({ standardError }) => standardError)) / figures.length,
    seedDeviation: deviation(perSeed),
  };
}

/** What always giving the most frequent answer would score on a task, percent. */
export function majorityOf(rows: readonly Row[], task: string): number | null {
  return rows[0]?.outcomes[0]?.cell.tasks.sets[task]?.majority.accuracy ?? null;
}

export interface Difference {
  /** Average of a minus average of b, percentage points, on the same records and seeds. */
  readonly value: number;
  readonly standardError: number;
}

/** Paired over records within every task and seed, then averaged as the table's average is. */
export function pairedAverage(a: Row, b: Row, tasks: readonly string[], measure: Measure): Difference | null {
  const perSeed = a.outcomes.flatMap((left, i): Difference[] => {
    const right = b.outcomes[i];
    if (!right) return [];
    const differences = tasks
      .map((task) => pairedDifference(ofTask(left, task), ofTask(right, task), measure))
      .filter((difference) => difference !== null);
    if (differences.length === 0) return [];
    return [
      {
        value: mean(differences.map(({ difference }) => difference)),
        standardError: Math.hypot(...differences.map((d) => d.standardError)) / differences.length,
      },
    ];
  });
  if (perSeed.length === 0) return null;
  return {
    value: mean(perSeed.map(({ value }) => value)),
    standardError: mean(perSeed.map(({ standardError }) => standardError)),
  };
}

function ofTask({ predictions }: Outcome, task: string): readonly Prediction[] {
  return predictions.filter((prediction) => prediction.task === task);
}

/** Mean over seeds of something a cell holds; null where one lacks it. */
export function meanOf(row: Row, read: (cell: CellFile) => number | null | undefined): number | null {
  const values = row.outcomes.map(({ cell }) => read(cell) ?? null);
  return values.some((value) => value === null) ? null : mean(values as number[]);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviation(values: readonly number[]): number | null {
  if (values.length < 2) return null;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}
