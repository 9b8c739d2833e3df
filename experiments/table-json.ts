/** Tables 3 and 4 for programs: every figure in full, the paper's rows with the letters of their notes, differences, claims. */
import { measures } from "../src/evaluation/score.ts";
import { besidePaper, paperModelOf } from "./beside-paper.ts";
import { notesOf, noteText, publishedTable } from "./paper.ts";
import { methodTitle } from "./parameters.ts";
import { averageFigure, majorityOf, meanOf, pairedAverage, type Row, rowsOf, taskFigure } from "./summary.ts";
import { besideInput, changedByFlags, type ReportInput, reportParts } from "./table-report.ts";

const SCHEMA_VERSION = 1;

/** Percent and points where it says accuracy or difference, nats a token where it says loss. */
export function tableJson(input: ReportInput): string {
  const { table, preset, modelName, tasks, missing, remarks = [] } = input;
  const rows = rowsOf(input.outcomes);
  const published = publishedTable(table.number);
  const letters = [...new Set(published.flatMap(notesOf))].sort();
  const json = {
    schemaVersion: SCHEMA_VERSION,
    table: table.name,
    subject: table.subject,
    preset: preset.name,
    model: modelName,
    /** The model of the paper that this is by its trained parameters; null: another one. */
    paperModel: paperModelOf(table.number, rows),
    differsFromProtocol: [...preset.differs, ...changedByFlags(input, rows)],
    missing,
    columns: besideInput(input).columns,
    majority: Object.fromEntries(tasks.map((task) => [task, majorityOf(rows, task)])),
    rows: rows.map((row) => rowJson(row, tasks)),
    differences: differencesOf(rows, tasks),
    paper: {
      rows: published.map(({ labelNotes, ...row }) => ({ ...row, labelNotes })),
      notes: Object.fromEntries(letters.map((letter) => [letter, noteText(letter)])),
    },
    besidePaper: besidePaper(besideInput(input), rows).map(
      ({ row, published: { model }, cells, ...average }) => ({
        method: row.method,
        rank: row.rank,
        model,
        ...average,
        difference: average.ours - average.paper,
        cells: cells.map((cell) => ({ ...cell, difference: cell.ours - cell.paper })),
      }),
    ),
    claims: claimsOf(input),
    remarks,
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

function rowJson(row: Row, tasks: readonly string[]): object {
  const { method, rank, outcomes } = row;
  const accuracies = measures.flatMap((measure) => {
    const average = averageFigure(row, tasks, measure);
    if (!average) return [];
    const each = Object.fromEntries(tasks.map((task) => [task, taskFigure(row, task, measure)]));
    return [[measure, { average, tasks: each }] as const];
  });
  return {
    method,
    title: methodTitle(method),
    rank,
    seeds: outcomes.flatMap(({ cell }) => cell.recipe.training?.seed ?? []),
    trainedParameters: meanOf(row, ({ manifest }) => manifest.trained?.parameters),
    accuracy: Object.fromEntries(accuracies),
    heldOutLoss: {
      unmerged: meanOf(row, (cell) => cell.tasks.heldOut?.unmerged),
      merged: meanOf(row, (cell) => cell.tasks.heldOut?.merged),
    },
    recipeHashes: outcomes.map(({ cell }) => cell.recipeHash),
  };
}

/** Every pair of trained rows of equal rank, paired on the records: half the interval's width beside each difference. */
function differencesOf(rows: readonly Row[], tasks: readonly string[]): object[] {
  const trained = rows.filter(({ method }) => method !== "base");
  return trained.flatMap((a, i) =>
    trained.slice(i + 1).flatMap((b) =>
      measures.flatMap((measure) => {
        const difference = a.rank === b.rank ? pairedAverage(a, b, tasks, measure) : null;
        if (!difference) return [];
        return [{ ruler: measure, rank: a.rank, method: a.method, minus: b.method, ...difference }];
      }),
    ),
  );
}

function claimsOf(input: ReportInput): object[] {
  const { table } = reportParts(input).claims ?? {};
  const names = table?.columns.map(({ title }) => title) ?? [];
  const rows = table?.rows.filter((row) => row !== "line") ?? [];
  return rows.map((row) => Object.fromEntries(names.map((name, i) => [name, row[i] ?? ""])));
}
