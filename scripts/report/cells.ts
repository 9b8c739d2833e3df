/** One table of task cells as a chapter: what it says in short, its tables and pictures, and how every cell was made. */
import { cellsBesideSection, paperModelOf } from "../../experiments/beside-paper.ts";
import { type Row, rowsOf } from "../../experiments/summary.ts";
import { averageChart, lossChart, modelTitle, taskCharts } from "../../experiments/table-picture.ts";
import {
  besideInput,
  changedByFlags,
  type ReportInput,
  reportParts,
  shortTitles,
} from "../../experiments/table-report.ts";
import { measures } from "../../src/evaluation/score.ts";
import {
  htmlFold,
  htmlFolded,
  htmlGrid,
  htmlHeading,
  htmlList,
  htmlParagraph,
  htmlPicture,
  htmlSection,
  htmlTable,
} from "../../src/reporting/html.ts";
import { type RowChart, rowChart } from "../../src/reporting/rows.ts";
import { type ItemChapter, verdictsIn } from "./chapter.ts";
import type { CellGroup } from "./groups.ts";
import { inShort } from "./in-short.ts";
import { scopeOf } from "./items.ts";
import { lossNote, lossPictures } from "./losses.ts";
import { madeSection } from "./made.ts";

/** Everything of a group that its table is written from. */
export function reportInput({ table, modelName, cells, remarks }: CellGroup): ReportInput {
  const { preset, evaluation } = cells[0]!.cell.recipe;
  return {
    table,
    preset: table.presets[preset],
    modelName,
    tasks: evaluation.tasks,
    missing: evaluation.tasks.filter((task) => cells[0]!.cell.tasks.sets[task] == null),
    outcomes: cells,
    remarks,
  };
}

export function cellsChapter(group: CellGroup): ItemChapter {
  const { table, cells } = group;
  const input = reportInput(group);
  const rows = rowsOf(cells);
  const parts = reportParts(input);
  const picture = (chart: RowChart): string => htmlPicture(rowChart(chart));
  const { answers, letters, published, beside, finer, paired, loss, claims, tells } = parts;
  const own = besideInput(input);
  const cellsBeside = cellsBesideSection(own, rows);
  const averages = measures.map((measure) => averageChart(input, rows, measure));
  const losses = lossPictures(cells).map((svg) => htmlPicture(svg));
  return {
    item: table.name,
    preset: input.preset.name,
    results: `${cells.length} cells`,
    verdicts: verdictsIn(claims ? [claims] : []),
    title: `Table ${table.number}, ${table.subject}: ${modelTitle(input.modelName)}`,
    badge: `preset ${input.preset.name}`,
    scope: tableScope(input, rows),
    body: [
      htmlHeading("In short"),
      htmlList(inShort(input, rows, parts)),
      htmlGrid([lossChart(rows), ...averages].filter((chart) => chart !== null).map(picture)),
      htmlParagraph(pictureNote(rows)),
      ...(answers ? [htmlSection(answers, "Generated answers")] : []),
      ...(letters ? [htmlSection(letters)] : []),
      ...taskFolds(input, own.columns, rows),
      ...(claims ? [htmlSection(claims, "The paper's claims")] : []),
      ...(beside ? [htmlSection(beside, "Beside the paper")] : []),
      ...(cellsBeside
        ? [
            htmlFold("Cell by cell beside the paper", [
              htmlTable(cellsBeside.table!, cellsBeside.title, true),
            ]),
          ]
        : []),
      htmlFolded(published),
      htmlSection(loss, "Held-out loss, memory and time"),
      ...(losses.length > 0 ? [htmlGrid(losses), htmlParagraph(lossNote(cells))] : []),
      ...(paired.length > 0 ? [htmlHeading("Differences between methods on the same records")] : []),
      ...paired.map(htmlFolded),
      ...(finer.length > 0 ? [htmlHeading("Finer rulers")] : []),
      ...finer.map(htmlFolded),
      htmlSection(tells),
      ...madeSection(cells.map(({ place, cell }) => ({ name: place.name, file: { ...cell } }))),
    ],
  };
}

function pictureNote(rows: readonly Row[]): string {
  const seeds = Math.max(1, ...rows.map(({ outcomes }) => outcomes.length));
  return seeds > 1
    ? "Bars and dots: means over seeds, rings: single seeds. Whiskers: ± one standard error, of accuracies from records and seeds, of losses from seeds."
    : "Whiskers: ± one standard error, from the records alone: one training run a row, so the luck of a run is not in them, and losses have none.";
}

function taskFolds(input: ReportInput, columns: readonly string[], rows: readonly Row[]): string[] {
  return measures.flatMap((measure) => {
    const charts = taskCharts(input, columns, rows, measure);
    if (charts.length === 0) return [];
    const pictures = charts.map((chart) => htmlPicture(rowChart(chart)));
    return [htmlFold(`Task by task as bars: ${shortTitles[measure]}`, [htmlGrid(pictures)])];
  });
}

/** A paper preset whose flags changed it, or on another model, is no more the paper's experiment than a small one. */
function tableScope(input: ReportInput, rows: readonly Row[]): string {
  const { preset, table } = input;
  if (preset.name !== "paper") return scopeOf(preset.name);
  const changed = changedByFlags(input, rows).filter((change) => !change.startsWith("model "));
  const model = paperModelOf(table.number, rows);
  if (model !== null && changed.length === 0) {
    return `The paper's recipe on a model that trains as many parameters as its ${model} in every row. What still differs stands below.`;
  }
  const reasons = [...(model === null ? [`${input.modelName} is none of its models`] : []), ...changed];
  return `Preset paper, but not the paper's experiment: ${reasons.join("; ")}.`;
}
