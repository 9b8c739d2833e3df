/** Table 5 as a chapter: a 4-bit base, trained and asked MMLU, from its cells. */
import { MODELS } from "../../experiments/mmlu-claims.ts";
import { mmluCharts } from "../../experiments/mmlu-files.ts";
import {
  changedByFlags,
  type MmluReport,
  mmluSections,
  subjectSections,
} from "../../experiments/mmlu-report.ts";
import { quantizedTitle, rowsBySet, setTitles, trainedOf } from "../../experiments/mmlu-summary.ts";
import { publishedRow } from "../../experiments/paper.ts";
import { inMillions } from "../../experiments/parameters.ts";
import { mmluPresets } from "../../experiments/recipes/table5.ts";
import { modelTitle } from "../../experiments/table-picture.ts";
import {
  htmlFolded,
  htmlGrid,
  htmlHeading,
  htmlParagraph,
  htmlPicture,
  htmlSection,
} from "../../src/reporting/html.ts";
import { rowChart } from "../../src/reporting/rows.ts";
import type { Section } from "../../src/reporting/table.ts";
import { type ItemChapter, verdictsIn } from "./chapter.ts";
import type { MmluGroup } from "./groups.ts";
import { scopeOf } from "./items.ts";
import { lossNote, lossPictures } from "./losses.ts";
import { madeSection } from "./made.ts";

/** Everything of a group that its table is written from. */
export function mmluInput({ modelName, cells, remarks }: MmluGroup): MmluReport {
  const { preset: name, inputs } = cells[0]!.cell.recipe;
  const preset = mmluPresets[name];
  const there = new Set(cells.map(({ cell }) => cell.recipe.set));
  return {
    preset,
    modelName,
    outcomes: cells,
    missing: [
      ...preset.sets.map((set) => set.name).filter((set) => !there.has(set)),
      ...preset.evaluation.splits.filter((split) => !inputs.mmlu[split]).map((split) => `MMLU ${split}`),
    ],
    remarks,
  };
}

export function mmluChapter(group: MmluGroup): ItemChapter {
  const { cells } = group;
  const input = mmluInput(group);
  const { preset, modelName } = input;
  const sections = mmluSections(input);
  const losses = rowsBySet(cells).flatMap(([set]) =>
    lossPictures(
      cells.filter(({ cell }) => cell.recipe.set === set),
      setTitles[set],
    ),
  );
  return {
    item: "table5",
    preset: preset.name,
    results: `${cells.length} cells`,
    verdicts: verdictsIn(sections),
    title: `Table 5, MMLU on a 4-bit base: ${modelTitle(modelName)}`,
    badge: `preset ${preset.name}`,
    scope: mmluScope(input),
    body: [
      htmlGrid(mmluCharts(input).map((chart) => htmlPicture(rowChart(chart)))),
      htmlParagraph(
        "Whiskers: ± one standard error, from the questions and, with several seeds, from these.",
      ),
      ...sections.map((section) => (isPapers(section) ? htmlFolded(section) : htmlSection(section))),
      htmlHeading("By subject"),
      ...subjectSections(input).map(htmlFolded),
      ...(losses.length > 0
        ? [htmlHeading("Losses while training"), htmlGrid(losses.map((svg) => htmlPicture(svg)))]
        : []),
      ...(losses.length > 0 ? [htmlParagraph(lossNote(cells))] : []),
      ...madeSection(cells.map(({ place, cell }) => ({ name: place.name, file: { ...cell } }))),
    ],
  };
}

/** Long, and the same on every page. */
function isPapers({ title }: Section): boolean {
  return title.startsWith("The paper's Table");
}

/** As Table 3's: only the paper's recipe on a model that trains as many parameters as its own is the paper's experiment. */
function mmluScope(input: MmluReport): string {
  const { preset, modelName, outcomes } = input;
  if (preset.name !== "paper") return scopeOf(preset.name);
  const rows = rowsBySet(outcomes).flatMap(([, own]) => own.filter(({ method }) => method !== "base"));
  const model = MODELS.find((name) =>
    rows.every((row) => {
      const printed = publishedRow(5, name, quantizedTitle(row.method), row.rank)?.trained?.text;
      const trained = trainedOf(row);
      // The paper prints half of them.
      return printed === undefined || (trained !== null && inMillions(trained / 2) === printed);
    }),
  );
  const changed = changedByFlags(input).filter((change) => !change.startsWith("model "));
  if (rows.length > 0 && model !== undefined && changed.length === 0) {
    return `The paper's recipe on a model that trains as many parameters as its ${model} in every row. What still differs stands below.`;
  }
  const reasons = [...(model === undefined ? [`${modelName} is none of its models`] : []), ...changed];
  return `Preset paper, but not the paper's experiment: ${reasons.join("; ")}.`;
}
