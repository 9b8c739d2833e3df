/** What a chapter tells the overview besides its own text: what it is of, and how the paper's claims came out in it. */
import type { Chapter } from "../../src/reporting/html.ts";
import type { Section } from "../../src/reporting/table.ts";

export interface ItemChapter extends Chapter {
  /** Name of a folder below results: "table3". */
  readonly item: string;
  readonly preset: string;
  /** "9 cells" */
  readonly results: string;
  readonly verdicts: Verdicts;
}

export interface Verdicts {
  readonly holds: number;
  readonly not: number;
  readonly open: number;
}

/** Counted in every column of verdicts. */
export function verdictsIn(sections: readonly Section[]): Verdicts {
  const words = sections.flatMap(
    ({ table }) => table?.rows.flatMap((row) => (row === "line" ? [] : row)) ?? [],
  );
  const count = (word: string): number => words.filter((one) => one === word).length;
  return { holds: count("holds"), not: count("does not hold"), open: count("cannot be told") };
}
