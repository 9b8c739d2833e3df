/** The files of Table 5 that lie beside its cells: Markdown, CSV, JSON and a picture, all made from the cells. */
import { join } from "node:path";
import { writeTextFile } from "../src/formats/files.ts";
import { type RowChart, type RowMark, rowCharts } from "../src/reporting/rows.ts";
import { MODELS } from "./mmlu-claims.ts";
import { type MmluReport, mmluMarkdown } from "./mmlu-report.ts";
import { mmluCsv } from "./mmlu-subjects.ts";
import {
  countsOf,
  letterNats,
  type MmluRow,
  measuresOf,
  namesOf,
  oneLetter,
  pooledFigure,
  quantizedTitle,
  rowName,
  rowsBySet,
  setTitles,
  splitsOf,
  splitTitles,
  trainedOf,
} from "./mmlu-summary.ts";
import { changedByFlags } from "./mmlu-tells.ts";
import { publishedRow } from "./paper.ts";
import type { SetName } from "./recipes/table5.ts";
import { averageFigure, errorOfMean, meanOf, taskFigure } from "./summary.ts";
import { TABLE_FILES } from "./table-files.ts";
import { methodColour, modelTitle } from "./table-picture.ts";

export function writeMmluFiles(out: string, report: MmluReport): void {
  const texts: Readonly<Record<(typeof TABLE_FILES)[number], string>> = {
    "table.md": mmluMarkdown(report),
    "table.csv": mmluCsv(report),
    "table.json": mmluJson(report),
    "table.svg": mmluPicture(report),
  };
  for (const name of TABLE_FILES) writeTextFile(join(out, name), texts[name]);
}

const SCHEMA_VERSION = 1;

/** Percent where it says accuracy, nats a token where it says loss, nats where it says so. */
export function mmluJson(report: MmluReport): string {
  const { preset, modelName, missing, remarks } = report;
  const json = {
    schemaVersion: SCHEMA_VERSION,
    table: "table5",
    subject: "MMLU behind five shots, 4-bit base",
    preset: preset.name,
    model: modelName,
    differsFromProtocol: [...preset.differs, ...changedByFlags(report)],
    missing,
    sets: rowsBySet(report.outcomes).map(([set, rows]) => ({
      set,
      oneLetter: Object.fromEntries(
        splitsOf(rows).map((split) => [split, oneLetter(rows, namesOf(rows, split))]),
      ),
      rows: rows.map((row) => rowJson(report, set, rows, row)),
    })),
    remarks,
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

function rowJson(report: MmluReport, set: SetName, rows: readonly MmluRow[], row: MmluRow): object {
  const { method, rank, outcomes } = row;
  const trained = trainedOf(row);
  const splits = splitsOf(rows).map((split) => {
    const names = namesOf(rows, split);
    const rulers = measuresOf(report).map((measure) => {
      const figures = {
        macro: averageFigure(row, names, measure),
        pooled: pooledFigure(row, names, measure),
        nats: letterNats(row, names, measure),
        subjects: Object.fromEntries(
          names.map((name) => [name.slice(split.length + 1), taskFigure(row, name, measure)]),
        ),
      };
      return [measure, figures] as const;
    });
    return [split, { ...countsOf(rows, names), accuracy: Object.fromEntries(rulers) }] as const;
  });
  const paper = MODELS.flatMap((model) => {
    const published = publishedRow(5, model, quantizedTitle(method), rank);
    if (!published) return [];
    return [{ model, accuracy: published.cells[setTitles[set]]!.value, trained: published.trained?.text }];
  });
  return {
    method,
    title: quantizedTitle(method),
    rank,
    seeds: outcomes.flatMap(({ cell }) => cell.recipe.training?.seed ?? []),
    trainedParameters: trained,
    halvedAsPrinted: trained === null ? null : trained / 2,
    splits: Object.fromEntries(splits),
    heldOutLoss: {
      unmerged: meanOf(row, (cell) => cell.tasks.heldOut?.unmerged),
      merged: meanOf(row, (cell) => cell.tasks.heldOut?.merged),
    },
    paper,
    recipeHashes: outcomes.map(({ cell }) => cell.recipeHash),
  };
}

/** Held-out losses as dots and MMLU as bars beside the most frequent letter, set by set. */
export function mmluCharts(report: MmluReport): RowChart[] {
  return rowsBySet(report.outcomes).flatMap(([set, rows]) => {
    const split = splitsOf(rows).at(-1)!;
    const accuracies = measuresOf(report).map((measure): RowChart => {
      const names = namesOf(rows, split);
      const marks = rows.map((row): RowMark => {
        const figure = averageFigure(row, names, measure);
        const named = { label: rowName(row), colour: methodColour(row.method) };
        if (!figure) return { ...named, value: null };
        return {
          ...named,
          value: figure.value,
          error: Math.hypot(figure.standardError, figure.seedError ?? 0),
        };
      });
      const { letter, macro } = oneLetter(rows, names);
      return {
        title: `${setTitles[set]}: MMLU ${splitTitles[split]}${measure === "labels" ? "" : ", letters with their space"}`,
        unit: `right, % (mean of ${names.length} subjects)`,
        mark: "bar",
        rows: marks,
        lines: [{ label: `always ${letter}`, value: macro }],
        digits: 1,
      };
    });
    return [lossChart(set, rows), ...accuracies].filter((chart) => chart !== null);
  });
}

export function mmluPicture(report: MmluReport): string {
  const { preset, modelName, missing } = report;
  const charts = mmluCharts(report);
  const title = `Table 5${preset.name === "paper" ? "" : " in small"}: QSBoRA on MMLU, ${modelTitle(modelName)} in NF4`;
  return rowCharts(title, charts, [
    "Whiskers: ± one standard error, from the questions and, with several seeds, the seeds.",
    ...(missing.length > 0 ? [`Not there: ${missing.join(", ")}.`] : []),
    ...(preset.name === "tiny" ? ["Invented questions: nothing here is the paper's experiment."] : []),
  ]);
}

/** null where nothing was held out. */
function lossChart(set: SetName, rows: readonly MmluRow[]): RowChart | null {
  const lossOf = (row: MmluRow): number | null => meanOf(row, ({ tasks }) => tasks.heldOut?.merged);
  const trained = rows.filter(({ method }) => method !== "base");
  const marks = trained.map((row): RowMark => {
    const error = errorOfMean(row.outcomes.map(({ cell }) => cell.tasks.heldOut?.merged ?? Number.NaN));
    const named = { label: rowName(row), colour: methodColour(row.method) };
    return { ...named, value: lossOf(row), ...(error === null ? {} : { error }) };
  });
  const base = rows.find(({ method }) => method === "base");
  const start = base ? lossOf(base) : null;
  if (marks.every(({ value }) => value === null)) return null;
  return {
    title: `${setTitles[set]}: held-out loss (less is better)`,
    unit: "nats a reply token, merged",
    mark: "dot",
    rows: marks,
    lines: start === null ? [] : [{ label: "4-bit base", value: start }],
    digits: 4,
  };
}
