/** The paper's own table beside ours: its rows with the marks of their notes, and its differences between methods. */
import { MISSING, right, type Section } from "../src/reporting/table.ts";
import {
  type NoteLetter,
  notesOf,
  noteText,
  type PaperTable,
  type PublishedRow,
  publishedRow,
  publishedTable,
} from "./paper.ts";

const superscripts: Readonly<Record<NoteLetter, string>> = {
  a: "ᵃ",
  b: "ᵇ",
  c: "ᶜ",
  d: "ᵈ",
  e: "ᵉ",
  f: "ᶠ",
  g: "ᵍ",
  h: "ʰ",
};

/** An average over part of the columns that ours has. */
export interface PublishedAverage {
  readonly title: string;
  readonly columns: readonly string[];
}

/** A column of ours beside what the paper prints as trained parameters. */
export interface BesideTrained {
  readonly title: string;
  readonly cell: (row: PublishedRow) => string;
}

/** All rows of a table of the paper, with the columns that ours has; further averages are ours, over its printed cells. */
export function publishedSection(
  table: PaperTable,
  columns: readonly string[],
  averages: readonly PublishedAverage[] = [],
  besideTrained: readonly BesideTrained[] = [],
): Section {
  const printed = publishedTable(table);
  const models = [...new Set(printed.map(({ model }) => model))];
  const rows = models.flatMap((model) => printed.filter((row) => row.model === model));
  const averaged = rows.some(({ average }) => average !== null);
  const cellsOf = (row: PublishedRow): string[] => [
    row.model,
    row.method,
    withNotes(`${row.rank ?? ""}`, row.labelNotes),
    row.trained ? withNotes(row.trained.text, row.trained.notes) : "",
    ...besideTrained.map(({ cell }) => cell(row)),
    ...columns.map((title) => withNotes(row.cells[title]!.value.toFixed(1), row.cells[title]!.notes)),
    ...(averaged ? [row.average ? withNotes(row.average.value.toFixed(1), row.average.notes) : MISSING] : []),
    ...averages.map((average) => meanOfCells(row, average.columns)?.toFixed(1) ?? MISSING),
  ];
  const letters = [...new Set(rows.flatMap(notesOf))].sort();
  return {
    title: `The paper's Table ${table}, as printed: complete test sets, one run a row, %`,
    table: {
      columns: [
        { title: "model" },
        { title: "method" },
        right("r"),
        right("trained"),
        ...besideTrained.map(({ title }) => right(title)),
        ...columns.map(right),
        ...(averaged ? [right("Avg")] : []),
        ...averages.map(({ title }) => right(title)),
      ],
      rows: rows.flatMap((row, i) =>
        i > 0 && rows[i - 1]!.model !== row.model ? ["line" as const, cellsOf(row)] : [cellsOf(row)],
      ),
    },
    paragraphs: letters.map((letter) => `${superscripts[letter]} ${noteText(letter)}`),
  };
}

function meanOfCells(row: PublishedRow, columns: readonly string[]): number | null {
  if (columns.length === 0) return null;
  return columns.reduce((sum, column) => sum + row.cells[column]!.value, 0) / columns.length;
}

function withNotes(text: string, letters: readonly NoteLetter[]): string {
  return text + letters.map((letter) => superscripts[letter]).join("");
}

/** A method of the paper's table. */
export interface PublishedMethod {
  readonly title: string;
  readonly rank: number;
}

/**
 * Mean of a's printed cells minus mean of b's, in points: at their ranks where the paper has them, else at 32; null
 * where it has none. The means are ours, so that a wrongly printed average does no harm.
 */
export function publishedDifference(
  table: PaperTable,
  model: string,
  columns: readonly string[],
  a: PublishedMethod,
  b: PublishedMethod,
): number | null {
  const average = ({ title, rank }: PublishedMethod): number | null => {
    const row = publishedRow(table, model, title, rank) ?? publishedRow(table, model, title, 32);
    return row && meanOfCells(row, columns);
  };
  const [left, other] = [average(a), average(b)];
  return left === null || other === null ? null : left - other;
}

/** Trained parameters as printed, or null where the paper has no such row. */
export function publishedParameters(
  table: PaperTable,
  model: string,
  title: string,
  rank: number,
): string | null {
  return publishedRow(table, model, title, rank)?.trained?.text ?? null;
}
