/** Figures of Table 5 from its cells: MMLU by subject (macro), by question (pooled), and how sure the letters are. */
import type { MmluSplit } from "../src/data/mmlu.ts";
import { mmluSplits } from "../src/data/mmlu.ts";
import { type MmluMeasure, mmluMeasures, type OneLetter, oneLetterOf } from "../src/evaluation/mmlu-score.ts";
import type { MmluCell } from "./mmlu-cell-file.ts";
import { methodTitle } from "./parameters.ts";
import { type SetName, setNames } from "./recipes/table5.ts";
import { errorOfMean, type Figure, meanOf, type Outcome, type Row, rowsOf } from "./summary.ts";

export type MmluOutcome = Outcome<MmluCell>;
export type MmluRow = Row<MmluCell>;

export const mmluRulers: Readonly<Record<MmluMeasure, string>> = {
  labels: "the letters as the published code looks them up",
  spacedLabels: 'the letters as they follow "Answer:", with their space',
};

export function measuresOf({ outcomes }: { readonly outcomes: readonly MmluOutcome[] }): MmluMeasure[] {
  return mmluMeasures.filter((measure) =>
    outcomes.some(({ cell }) => Object.values(cell.tasks.sets).some(({ scores }) => scores[measure])),
  );
}

/** As the paper names its columns. */
export const setTitles: Readonly<Record<SetName, string>> = { alpaca: "Alpaca", "flan-v2": "FLANv2" };

export const splitTitles: Readonly<Record<MmluSplit, string>> = { val: "validation", test: "test" };

/** Rows of the sets that have cells, in the paper's order. */
export function rowsBySet(outcomes: readonly MmluOutcome[]): [SetName, MmluRow[]][] {
  return setNames.flatMap((set): [SetName, MmluRow[]][] => {
    const own = outcomes.filter(({ cell }) => cell.recipe.set === set);
    return own.length > 0 ? [[set, rowsOf(own)]] : [];
  });
}

/** "lora" -> "QLoRA": Q stands for the 4-bit base. */
export function quantizedTitle(method: string): string {
  return method === "base" ? "4-bit base" : `Q${methodTitle(method)}`;
}

export function rowName({ method, rank }: Pick<MmluRow, "method" | "rank">): string {
  return rank > 0 ? `${quantizedTitle(method)} ${rank}` : quantizedTitle(method);
}

/** Names of a split's results, by subject. */
export function namesOf(rows: readonly MmluRow[], split: MmluSplit): string[] {
  const sets = rows[0]?.outcomes[0]?.cell.tasks.sets ?? {};
  return Object.keys(sets).filter((name) => name.startsWith(`${split}/`));
}

export function splitsOf(rows: readonly MmluRow[]): MmluSplit[] {
  return mmluSplits.filter((split) => namesOf(rows, split).length > 0);
}

/** Right answers of all questions of the subjects, percent; null where the ruler is missing. */
export function pooledFigure(row: MmluRow, names: readonly string[], measure: MmluMeasure): Figure | null {
  const shares = row.outcomes.map(({ cell }) => {
    const results = names.map((name) => cell.tasks.sets[name]!);
    const records = results.reduce((sum, result) => sum + result.records, 0);
    const right = results.reduce((sum, result) => sum + (result.scores[measure]?.correct ?? Number.NaN), 0);
    return { share: right / records, records };
  });
  if (shares.length === 0 || shares.some(({ share }) => !Number.isFinite(share))) return null;
  const p = shares.reduce((sum, { share }) => sum + share, 0) / shares.length;
  return {
    value: 100 * p,
    standardError: 100 * Math.sqrt((p * (1 - p)) / shares[0]!.records),
    seedError: errorOfMean(shares.map(({ share }) => 100 * share)),
  };
}

/** Mean over the subjects of −log of the right letter's share, nats; null where the ruler is missing. */
export function letterNats(row: MmluRow, names: readonly string[], measure: MmluMeasure): number | null {
  return meanOf(row, ({ tasks }) => {
    const values = names.map((name) => tasks.sets[name]?.[measure === "labels" ? "labelNats" : "spacedNats"]);
    if (values.length === 0 || values.some((value) => value == null)) return null;
    return (values as number[]).reduce((sum, value) => sum + value, 0) / values.length;
  });
}

/** What always answering the same letter would score at best. */
export function oneLetter(rows: readonly MmluRow[], names: readonly string[]): OneLetter {
  const predictions = rows[0]?.outcomes[0]?.predictions ?? [];
  return oneLetterOf(
    names.map((name) => predictions.filter(({ task }) => task === name).map(({ label }) => label)),
  );
}

/** Trained parameters of a row; null for the base. */
export function trainedOf(row: MmluRow): number | null {
  return meanOf(row, ({ manifest }) => manifest.trained?.parameters);
}

/** Questions and too long prompts over some results. */
export function countsOf(rows: readonly MmluRow[], names: readonly string[]) {
  const sets = rows[0]?.outcomes[0]?.cell.tasks.sets ?? {};
  const results = names.map((name) => sets[name]!);
  return {
    questions: results.reduce((sum, { records }) => sum + records, 0),
    shortened: results.reduce((sum, { shortened }) => sum + shortened, 0),
  };
}
