/** Table 5 in full: accuracy by subject, for the page and for spreadsheets. */
import { mmluMeasures } from "../src/evaluation/mmlu-score.ts";
import { type CsvValue, csvText } from "../src/reporting/csv.ts";
import { MISSING, right, type Section } from "../src/reporting/table.ts";
import type { MmluReport } from "./mmlu-report.ts";
import {
  countsOf,
  measuresOf,
  mmluRulers,
  namesOf,
  rowName,
  rowsBySet,
  setTitles,
  splitsOf,
  splitTitles,
} from "./mmlu-summary.ts";
import { taskFigure } from "./summary.ts";

/** Accuracy by subject, a table a set, split and ruler. */
export function subjectSections(report: MmluReport): Section[] {
  return rowsBySet(report.outcomes).flatMap(([set, rows]) =>
    splitsOf(rows).flatMap((split) =>
      measuresOf(report).map((measure): Section => {
        const names = namesOf(rows, split);
        return {
          title: `${setTitles[set]}, ${splitTitles[split]}: accuracy by subject, ${mmluRulers[measure]}, %`,
          table: {
            columns: [{ title: "subject" }, right("questions"), ...rows.map((row) => right(rowName(row)))],
            rows: names.map((name) => [
              name.slice(split.length + 1).replaceAll("_", " "),
              `${countsOf(rows, [name]).questions}`,
              ...rows.map((row) => taskFigure(row, name, measure)?.value.toFixed(1) ?? MISSING),
            ]),
          },
          paragraphs: [],
        };
      }),
    ),
  );
}

/** One line a cell, subject and ruler. */
export function mmluCsv({ outcomes }: Pick<MmluReport, "outcomes">): string {
  const rows = outcomes.flatMap(({ cell: { recipe, manifest, tasks } }) => {
    const { training, set } = recipe;
    const cell = [set, training?.method ?? "base", training?.rank ?? 0, training?.seed ?? null];
    return Object.entries(tasks.sets).flatMap(([name, { records, scores, labelNats, spacedNats }]) =>
      mmluMeasures.flatMap((measure): CsvValue[][] => {
        const score = scores[measure];
        if (!score) return [];
        const nats = measure === "labels" ? labelNats : spacedNats;
        const [split, subject] = name.split("/") as [string, string];
        const { correct, accuracy, standardError } = score;
        const figures = [records, correct, accuracy, standardError, nats];
        return [[...cell, manifest.trained?.parameters ?? 0, split, subject, measure, ...figures]];
      }),
    );
  });
  const named = ["set", "method", "rank", "seed", "trained", "split", "subject", "ruler"];
  return csvText([...named, "records", "correct", "accuracy", "standard_error", "nats"], rows);
}
