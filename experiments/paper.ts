/** The paper's tables as objects, and the notes that its cells need. */
import { columns, notes, table3, table4, table5 } from "./paper-data.ts";

export type PaperTable = keyof typeof columns;
export type NoteLetter = keyof typeof notes;

/** A printed number and the letters of its notes. */
export interface Published {
  readonly value: number;
  readonly notes: readonly NoteLetter[];
}

export interface PublishedRow {
  readonly model: string;
  readonly method: string;
  readonly rank: number | null;
  readonly trained: { readonly text: string; readonly notes: readonly NoteLetter[] } | null;
  readonly cells: Readonly<Record<string, Published>>;
  readonly average: Published | null;
  /** Notes on model, method or rank. */
  readonly labelNotes: readonly NoteLetter[];
}

const texts: Readonly<Record<PaperTable, string>> = { 3: table3, 4: table4, 5: table5 };

/** Rows of one table, in the paper's order. */
export function publishedTable(table: PaperTable): PublishedRow[] {
  return texts[table]
    .trim()
    .split("\n")
    .map((line) => parseRow(table, line.trim().split(/\s+/)));
}

function parseRow(table: PaperTable, [model, method, rank, trained, ...numbers]: string[]): PublishedRow {
  const names: readonly string[] = columns[table];
  if (!model || !method || !rank || !trained || numbers.length !== names.length + 1) {
    throw new Error(`table ${table}: a row has ${numbers.length} numbers, expected ${names.length + 1}`);
  }
  const label = marked(rank);
  const parameters = marked(trained);
  return {
    model,
    method,
    rank: label.text === "-" ? null : Number(label.text),
    trained: parameters.text === "-" ? null : parameters,
    cells: Object.fromEntries(names.map((name, i) => [name, published(numbers[i]!)!])),
    average: published(numbers[names.length]!),
    labelNotes: label.notes,
  };
}

/** "57.2h" is 57.2 with note h. Note letters are small, the M of a parameter count is not. */
function marked(text: string): { text: string; notes: readonly NoteLetter[] } {
  const letters = /[a-z]*$/.exec(text)![0];
  return { text: text.slice(0, text.length - letters.length), notes: [...letters].map(noteLetter) };
}

function noteLetter(letter: string): NoteLetter {
  if (!Object.hasOwn(notes, letter)) throw new Error(`there is no note ${letter}`);
  return letter as NoteLetter;
}

function published(text: string): Published | null {
  if (text === "-") return null;
  const { text: number, notes: letters } = marked(text);
  return { value: Number(number), notes: letters };
}

/** The row of one model, method and rank, or null where the paper has none. */
export function publishedRow(
  table: PaperTable,
  model: string,
  method: string,
  rank: number,
): PublishedRow | null {
  const rows = publishedTable(table);
  return rows.find((row) => row.model === model && row.method === method && row.rank === rank) ?? null;
}

/** All letters that occur in a row. */
export function notesOf(row: PublishedRow): NoteLetter[] {
  const cells = [...Object.values(row.cells), ...(row.average ? [row.average] : [])];
  return [...row.labelNotes, ...(row.trained?.notes ?? []), ...cells.flatMap((cell) => cell.notes)];
}

export function noteText(letter: NoteLetter): string {
  return notes[letter];
}
