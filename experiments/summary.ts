/** Rows of a table from its cells: means over seeds, standard errors, paired differences. Numbers only, no layout. */
import { isRight, type Measure } from "../src/evaluation/score.ts";
import { mean, studentQuantile } from "../src/reporting/statistics.ts";
import type { CellFile, StoredPrediction, TaskCell } from "./cell-file.ts";

/** A finished cell with its predictions. */
export interface Outcome<C extends TaskCell = CellFile> {
  readonly cell: C;
  readonly predictions: readonly StoredPrediction[];
}

/** A mean, and what is known of its error. */
export interface Figure {
  readonly value: number;
  /** From the number of records, in the figure's own unit. */
  readonly standardError: number;
  /** Standard error of the mean over seeds; null with one seed. */
  readonly seedError: number | null;
}

/** All seeds of one method and rank. */
export interface Row<C extends TaskCell = CellFile> {
  /** Method name, or "base". */
  readonly method: string;
  readonly rank: number;
  readonly outcomes: readonly Outcome<C>[];
}

/** Cells of equal method and rank are one row; rows in the order of their first cell. */
export function rowsOf<C extends TaskCell = CellFile>(outcomes: readonly Outcome<C>[]): Row<C>[] {
  const rows = new Map<string, { method: string; rank: number; outcomes: Outcome<C>[] }>();
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
export function taskFigure(row: Row<TaskCell>, task: string, measure: Measure): Figure | null {
  const scores = row.outcomes.map(({ cell }) => cell.tasks.sets[task]?.scores[measure]);
  const present = scores.filter((score) => score !== undefined);
  if (present.length === 0 || present.length < scores.length) return null;
  return {
    value: mean(present.map((score) => score.accuracy)),
    // The records are the same for every seed: more seeds do not make this error smaller.
    standardError: mean(present.map((score) => score.standardError)),
    seedError: errorOfMean(present.map((score) => score.accuracy)),
  };
}

/** Plain mean over the tasks that are there, as the protocol averages. */
export function averageFigure(row: Row<TaskCell>, tasks: readonly string[], measure: Measure): Figure | null {
  const figures = tasks.map((task) => taskFigure(row, task, measure)).filter((figure) => figure !== null);
  if (figures.length === 0) return null;
  const perSeed = row.outcomes.map(({ cell }) => {
    const scores = tasks.map((task) => cell.tasks.sets[task]?.scores[measure]?.accuracy);
    return mean(scores.filter((score) => score !== undefined));
  });
  return {
    value: mean(figures.map(({ value }) => value)),
    standardError: Math.hypot(...figures.map(({ standardError }) => standardError)) / figures.length,
    seedError: errorOfMean(perSeed),
  };
}

/** What always giving the most frequent answer would score on a task, percent. */
export function majorityOf(rows: readonly Row<TaskCell>[], task: string): number | null {
  return rows[0]?.outcomes[0]?.cell.tasks.sets[task]?.majority.accuracy ?? null;
}

/** A paired difference and what is known of its error. */
export interface Difference {
  /** Average of a minus average of b, percentage points, on the same records and seeds. */
  readonly value: number;
  /** From the records: the spread of their own differences, each the mean over seeds. */
  readonly standardError: number;
  /** From the seeds: standard error of the mean of their differences; null with one pair of runs. */
  readonly seedError: number | null;
  /** Half of the 95 % interval: both errors together, Student's factor for the few seeds. */
  readonly halfWidth: number;
  /** Pairs of runs. */
  readonly pairs: number;
}

const NORMAL_975 = 1.96;

/** Paired over records within every task, and over seeds, then averaged as the table's average is. */
export function pairedAverage(
  a: Row<TaskCell>,
  b: Row<TaskCell>,
  tasks: readonly string[],
  measure: Measure,
): Difference | null {
  const runs = pairsOf(a, b);
  const perTask = tasks.map((task) => recordDifferences(runs, task, measure)).filter((d) => d.length > 0);
  if (runs.length === 0 || perTask.length === 0) return null;
  const overRecords = perTask.map((byRecord) => byRecord.map(mean));
  const standardError = Math.hypot(...overRecords.map((d) => errorOfMean(d) ?? 0)) / perTask.length;
  const perRun = runs.map((_, i) => mean(perTask.map((byRecord) => mean(byRecord.map((d) => d[i]!)))));
  const seedError = errorOfMean(perRun);
  const fromSeeds = seedError === null ? 0 : studentQuantile(runs.length - 1) * seedError;
  return {
    value: mean(perRun),
    standardError,
    seedError,
    halfWidth: Math.hypot(NORMAL_975 * standardError, fromSeeds),
    pairs: runs.length,
  };
}

/** Runs of equal seed; what has no seed (the base model) stands against every run of the other. */
function pairsOf(a: Row<TaskCell>, b: Row<TaskCell>): [Outcome<TaskCell>, Outcome<TaskCell>][] {
  const seedOf = ({ cell }: Outcome<TaskCell>): number | null => cell.recipe.training?.seed ?? null;
  return a.outcomes.flatMap((left) =>
    b.outcomes
      .filter((right) => seedOf(left) === null || seedOf(right) === null || seedOf(left) === seedOf(right))
      .map((right): [Outcome<TaskCell>, Outcome<TaskCell>] => [left, right]),
  );
}

/** For every record that all runs have, a's point minus b's in each run: 100, 0 or -100. */
function recordDifferences(
  runs: readonly (readonly [Outcome<TaskCell>, Outcome<TaskCell>])[],
  task: string,
  measure: Measure,
): number[][] {
  const perRun = runs.map(([a, b]) => {
    const others = pointsOf(b, task, measure);
    const both = [...pointsOf(a, task, measure)].filter(([record]) => others.has(record));
    return new Map(both.map(([record, points]) => [record, points - others.get(record)!]));
  });
  const records = [...(perRun[0]?.keys() ?? [])].filter((record) => perRun.every((run) => run.has(record)));
  return records.map((record) => perRun.map((run) => run.get(record)!));
}

/** 100 or 0 by record. */
function pointsOf({ predictions }: Outcome<TaskCell>, task: string, measure: Measure): Map<number, number> {
  const points = new Map<number, number>();
  for (const prediction of predictions) {
    const right = prediction.task === task ? isRight(prediction, measure) : null;
    if (right !== null) points.set(prediction.record, right ? 100 : 0);
  }
  return points;
}

/** Mean over seeds of something a cell holds; null where one lacks it. */
export function meanOf<C extends TaskCell>(
  row: Row<C>,
  read: (cell: C) => number | null | undefined,
): number | null {
  const values = row.outcomes.map(({ cell }) => read(cell) ?? null);
  return values.some((value) => value === null) ? null : mean(values as number[]);
}

/** Standard error of a mean from the spread of its values; null for fewer than two. */
export function errorOfMean(values: readonly number[]): number | null {
  if (values.length < 2) return null;
  const middle = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1) / values.length);
}
