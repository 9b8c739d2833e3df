/** Our averages and cells beside the paper's of the same method and rank, with the differences, and what these are worth. */
import { MISSING, right, type Section } from "../src/reporting/table.ts";
import { signed } from "./claims.ts";
import { type PaperTable, type PublishedRow, publishedRow, publishedTable } from "./paper.ts";
import { inMillions, methodTitle } from "./parameters.ts";
import { averageFigure, meanOf, type Row, taskFigure } from "./summary.ts";

export interface BesideInput {
  readonly number: PaperTable;
  /** false: questions that were made up, which no figure of the paper can stand beside. */
  readonly accuracies: boolean;
  readonly modelName: string;
  /** Task names and the paper's names of them, in the order of the columns. */
  readonly tasks: readonly string[];
  readonly columns: readonly string[];
}

/** One row of ours beside one of the paper's, percent and points; the averages are over the tasks that ours has. */
export interface Beside {
  readonly row: Row;
  readonly published: PublishedRow;
  readonly ours: number;
  readonly paper: number;
  readonly cells: readonly { readonly column: string; readonly ours: number; readonly paper: number }[];
}

/** Every trained row of ours with each of the paper's rows of its method and rank. */
export function besidePaper(input: BesideInput, rows: readonly Row[]): Beside[] {
  if (!input.accuracies) return [];
  const own = paperModelOf(input.number, rows);
  const models = own === null ? modelsOf(input.number) : [own];
  return rows.flatMap((row) =>
    models.flatMap((model) => {
      const published = publishedRow(input.number, model, methodTitle(row.method), row.rank);
      if (!published) return [];
      const cells = input.tasks.flatMap((task, i) => {
        const ours = taskFigure(row, task, "generation");
        const column = input.columns[i]!;
        return ours ? [{ column, ours: ours.value, paper: published.cells[column]!.value }] : [];
      });
      const average = averageFigure(row, input.tasks, "generation");
      if (!average || cells.length === 0) return [];
      const paper = cells.reduce((sum, cell) => sum + cell.paper, 0) / cells.length;
      return [{ row, published, ours: average.value, paper, cells }];
    }),
  );
}

function modelsOf(number: PaperTable): string[] {
  return [...new Set(publishedTable(number).flatMap(({ model, trained }) => (trained ? [model] : [])))];
}

/** The paper's model that trains exactly as many parameters in every row, or null: another model trains others. */
export function paperModelOf(number: PaperTable, rows: readonly Row[]): string | null {
  const trained = rows.filter(({ method }) => method !== "base");
  const same = modelsOf(number).filter((model) => {
    const compared = trained.flatMap((row) => {
      const published = publishedRow(number, model, methodTitle(row.method), row.rank);
      const ours = meanOf(row, ({ manifest }) => manifest.trained?.parameters);
      return published?.trained && ours !== null ? [inMillions(ours) === published.trained.text] : [];
    });
    return compared.length > 0 && compared.every(Boolean);
  });
  return same.length === 1 ? same[0]! : null;
}

/** null where nothing of the paper may stand beside ours. */
export function besideSection(input: BesideInput, rows: readonly Row[]): Section | null {
  const beside = besidePaper(input, rows);
  if (beside.length === 0) return null;
  const models = [...new Set(beside.map(({ published }) => published.model))];
  const compared = rows.filter((row) => beside.some((one) => one.row === row));
  const count = Math.max(...beside.map(({ cells }) => cells.length));
  return {
    title: `Ours beside the paper's Table ${input.number}: generated answers, average over the ${count} tasks that were run here, %`,
    table: {
      columns: [
        { title: "method" },
        right("r"),
        right("ours"),
        ...models.flatMap((model) => [right(model), right("ours − it")]),
      ],
      rows: compared.map((row) => [
        methodTitle(row.method),
        `${row.rank}`,
        beside.find((one) => one.row === row)!.ours.toFixed(1),
        ...models.flatMap((model) => {
          const one = beside.find((other) => other.row === row && other.published.model === model);
          return one ? [one.paper.toFixed(1), signed(one.ours - one.paper)] : [MISSING, MISSING];
        }),
      ]),
    },
    paragraphs: [besideNote(input, rows)],
  };
}

function besideNote({ number, modelName }: BesideInput, rows: readonly Row[]): string {
  const own = paperModelOf(number, rows);
  if (own !== null) return `${modelName} trains as many parameters as the paper's ${own} in every row.`;
  return (
    `No reproduction: ${modelName} is none of the paper's models. A difference here is the distance between two settings ` +
    "(model, steps, data); it neither confirms nor refutes a printed number."
  );
}

/** Every cell of ours with the paper's and the difference; null as above. */
export function cellsBesideSection(input: BesideInput, rows: readonly Row[]): Section | null {
  const beside = besidePaper(input, rows);
  if (beside.length === 0) return null;
  const columns = beside[0]!.cells.map(({ column }) => column);
  const body = rows.flatMap((row, i): (readonly string[] | "line")[] => {
    const own = beside.filter((one) => one.row === row);
    if (own.length === 0) return [];
    const name = `${methodTitle(row.method)} ${row.rank}`;
    const ours = [
      name,
      "ours",
      ...own[0]!.cells.map((cell) => cell.ours.toFixed(1)),
      own[0]!.ours.toFixed(1),
    ];
    const theirs = own.flatMap(({ published, cells, ours: average, paper }) => [
      ["", published.model, ...cells.map((cell) => cell.paper.toFixed(1)), paper.toFixed(1)],
      ["", "ours − it", ...cells.map((cell) => signed(cell.ours - cell.paper)), signed(average - paper)],
    ]);
    const later = rows.slice(0, i).some((other) => beside.some((one) => one.row === other));
    return [...(later ? ["line" as const] : []), ours, ...theirs];
  });
  return {
    title: `Cell by cell: generated answers beside the paper's Table ${input.number}, %`,
    table: {
      columns: [{ title: "method" }, { title: "" }, ...columns.map(right), right("Avg")],
      rows: body,
    },
    paragraphs: ["Avg of the paper: the mean of its printed cells over these columns."],
  };
}
