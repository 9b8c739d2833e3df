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

/** All rows of a table of the paper, with the columns that ours has. */
export function publishedSection(table: PaperTable, columns: readonly string[]): Section {
  const rows = publishedTable(table);
  const cellsOf = (row: PublishedRow): string[] => [
    row.model,
    row.method,
    withNotes(`${row.rank ?? ""}`, row.labelNotes),
    row.trained ? withNotes(row.trained.text, row.trained.notes) : "",
    ...columns.map((title) => withNotes(row.cells[title]!.value.toFixed(1), row.cells[title]!.notes)),
    row.average ? withNotes(row.average.value.toFixed(1), row.average.notes) : MISSING,
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
        ...columns.map(right),
        right("Avg"),
      ],
      rows: rows.flatMap((row, i) =>
        i > 0 && rows[i - 1]!.model !== row.model ? ["line" as const, cellsOf(row)] : [cellsOf(row)],
      ),
    },
    paragraphs: letters.map((letter) => `${superscripts[letter]} ${noteText(letter)}`),
  };
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
    return row && columns.reduce((sum, column) => sum + row.cells[column]!.value, 0) / columns.length;
  };
  const [left, other] = [average(a), average(b)];
  return left === null || other === null ? null : left - other;
}
