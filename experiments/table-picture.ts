/** Tables 3 and 4 as pictures: averages and single tasks as bars beside the majority class, held-out losses as dots. */

import type { Measure } from "../src/evaluation/score.ts";
import { type RowChart, type RowMark, rowCharts } from "../src/reporting/rows.ts";
import { mean } from "../src/reporting/statistics.ts";
import { methodTitle } from "./parameters.ts";
import {
  averageFigure,
  errorOfMean,
  type Figure,
  majorityOf,
  meanOf,
  type Outcome,
  type Row,
  rowsOf,
  taskFigure,
} from "./summary.ts";
import { type ReportInput, shortTitles } from "./table-report.ts";

/** A method has its colour in every picture (memory-report.ts counts the same); the base and `full` are grey. */
const COLOURS: Readonly<Record<string, number>> = {
  lora: 1,
  "lora-fa": 2,
  dora: 3,
  "sbora-fa": 4,
  "sbora-fb": 5,
  oa: 6,
};

export function methodColour(method: string): number {
  return COLOURS[method] ?? 0;
}

const MODELS: Readonly<Record<string, string>> = {
  tiny: "the embedded tiny model",
  "smollm2-135m": "SmolLM2-135M",
  "llama-7b": "LLaMA-7B",
  "llama3-8b": "LLaMA3-8B",
};

export function modelTitle(name: string): string {
  return MODELS[name] ?? name;
}

export function rowTitle({ method, rank }: Pick<Row, "method" | "rank">): string {
  if (method === "base") return "base";
  return rank > 0 ? `${methodTitle(method)} ${rank}` : methodTitle(method);
}

/** null where no row has this ruler. */
export function averageChart(input: ReportInput, rows: readonly Row[], measure: Measure): RowChart | null {
  const { tasks } = input;
  const present = tasks.map((task) => majorityOf(rows, task)).filter((value) => value !== null);
  const marks = rows.map((row) =>
    barOf(row, averageFigure(row, tasks, measure), ({ cell }) => {
      const scores = tasks.map((task) => cell.tasks.sets[task]?.scores[measure]?.accuracy);
      return mean(scores.filter((score) => score !== undefined));
    }),
  );
  if (present.length === 0 || marks.every(({ value }) => value === null)) return null;
  return {
    title: `${capital(shortTitles[measure])}${measure === "generation" ? ", the paper's ruler" : ""}`,
    unit: `right, % (mean of ${present.length} task${present.length > 1 ? "s" : ""})`,
    mark: "bar",
    rows: marks,
    lines: [{ label: "majority class", value: mean(present) }],
    digits: 1,
  };
}

/** A picture a task that has this ruler. */
export function taskCharts(
  input: ReportInput,
  columns: readonly string[],
  rows: readonly Row[],
  measure: Measure,
): RowChart[] {
  return input.tasks.flatMap((task, i): RowChart[] => {
    const majority = majorityOf(rows, task);
    const marks = rows.map((row) =>
      barOf(
        row,
        taskFigure(row, task, measure),
        ({ cell }) => cell.tasks.sets[task]!.scores[measure]!.accuracy,
      ),
    );
    if (majority === null || marks.every(({ value }) => value === null)) return [];
    const lines = [{ label: "majority class", value: majority }];
    return [{ title: columns[i] ?? task, unit: "right, %", mark: "bar", rows: marks, lines, digits: 1 }];
  });
}

function barOf(row: Row, figure: Figure | null, partOf: (outcome: Outcome) => number): RowMark {
  const named = { label: rowTitle(row), colour: methodColour(row.method) };
  if (!figure) return { ...named, value: null };
  return {
    ...named,
    value: figure.value,
    error: Math.hypot(figure.standardError, figure.seedError ?? 0),
    parts: row.outcomes.map(partOf),
  };
}

/** Loss of the merged models on the held-out responses; null where nothing was held out. */
export function lossChart(rows: readonly Row[]): RowChart | null {
  const marks = rows.map((row): RowMark => {
    const value = meanOf(row, ({ tasks }) => tasks.heldOut?.merged);
    const parts = row.outcomes.map(({ cell }) => cell.tasks.heldOut?.merged ?? Number.NaN);
    const error = value === null ? null : errorOfMean(parts);
    return {
      label: rowTitle(row),
      colour: methodColour(row.method),
      value,
      ...(error === null ? {} : { error, parts }),
      // What has not been trained is so far off that the others would be one dot beside it.
      aside: row.method === "base",
    };
  });
  if (marks.every(({ value, aside }) => value === null || aside)) return null;
  return {
    title: "Held-out loss, less is better",
    unit: "nats a response token, merged model",
    mark: "dot",
    rows: marks,
    lines: [],
    digits: 4,
  };
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

/** The table in one picture, for a page that shows no more of it. */
export function tablePicture(input: ReportInput): string {
  const { table, modelName, preset, missing } = input;
  const rows = rowsOf(input.outcomes);
  const charts = [lossChart(rows), averageChart(input, rows, "generation")].filter((chart) => chart !== null);
  const seeds = Math.max(1, ...rows.map(({ outcomes }) => outcomes.length));
  const tasks = input.tasks.filter((task) => !missing.includes(task));
  const title = `Table ${table.number} in small: ${table.subject}, ${modelTitle(modelName)}, ${seeds} seed${seeds > 1 ? "s" : ""}`;
  return rowCharts(preset.name === "paper" ? title.replace(" in small", "") : title, charts, [
    `${recordsOf(rows, tasks)} test records a task. Whiskers: ± one standard error ${
      seeds > 1
        ? "(records and seeds); rings: single seeds."
        : "from the records; one training run a row, its luck is not in them."
    }`,
    ...(missing.length > 0 ? [`Without ${missing.join(", ")}, whose test set was not there.`] : []),
    ...(preset.name === "small"
      ? [`${modelTitle(modelName)} is none of the paper's models: no figure here is one of the paper's.`]
      : []),
    ...(preset.name === "tiny" ? ["Invented questions: nothing here is the paper's experiment."] : []),
  ]);
}

/** "200" or "60 to 200". */
export function recordsOf(rows: readonly Row[], tasks: readonly string[]): string {
  const counts = tasks.map((task) => rows[0]?.outcomes[0]?.cell.tasks.sets[task]?.records ?? 0);
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  return least === most ? `${least}` : `${least} to ${most}`;
}
