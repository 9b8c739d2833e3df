import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { notesOf, noteText, publishedRow, publishedTable } from "./paper.ts";

interface ReferenceRow {
  table: string;
  model: string;
  method: string;
  rank: number | null;
  trainableParams: string | null;
  tasks: Record<string, number>;
  avg: number | null;
  avgOffByMoreThan0_1?: boolean;
  labelCorrected: boolean;
  suspectedRepair?: object;
  cellsNotAttainableAsRoundedKoverN?: { task: string }[];
}

const reference = join(import.meta.dir, "../../shared/paper-tables.json");

describe("published numbers", () => {
  test("25 rows, 25 rows, 8 rows of three models", () => {
    expect([3, 4, 5].map((table) => publishedTable(table as 3).length)).toEqual([25, 25, 24]);
  });

  test("an average differs from the mean of its cells in one row only, and that row says so", () => {
    const wrong = ([3, 4] as const).flatMap((table) =>
      publishedTable(table).filter((row) => {
        const cells = Object.values(row.cells);
        const mean = cells.reduce((sum, cell) => sum + cell.value, 0) / cells.length;
        return Math.abs(mean - row.average!.value) > 0.1;
      }),
    );
    expect(wrong.map((row) => [row.model, row.method, row.rank, row.average!.notes])).toEqual([
      ["LLaMA-7B", "SBoRA-FB", 32, ["a"]],
    ]);
    expect(noteText("a")).toContain("69.05");
  });

  test("the permuted row is marked in every cell", () => {
    const row = publishedRow(4, "LLaMA3-8B", "LoRA-FA", 32)!;
    expect(Object.values(row.cells).every((cell) => cell.notes.includes("b"))).toBe(true);
  });

  test("rows that the paper does not have are null", () => {
    expect(publishedRow(3, "LLaMA-7B", "LoRA", 8)).toBeNull();
  });

  test.skipIf(!existsSync(reference))("all cells and errata as in paper-tables.json", () => {
    const { rows } = JSON.parse(readFileSync(reference, "utf8")) as { rows: ReferenceRow[] };
    const ours = ([3, 4, 5] as const).flatMap((table) =>
      publishedTable(table).map((row) => {
        const cells = Object.entries(row.cells);
        return {
          row: [
            `${table}`,
            row.model,
            row.method,
            row.rank,
            row.trained?.text ?? null,
            row.average?.value ?? null,
          ],
          cells: Object.fromEntries(cells.map(([name, { value }]) => [name, value])),
          wrongAverage: row.average?.notes.includes("a") ?? false,
          corrected: row.labelNotes.some((letter) => letter === "c" || letter === "e"),
          permuted: notesOf(row).includes("b"),
          unattainable: cells.filter(([, cell]) => cell.notes.includes("d")).map(([name]) => name),
        };
      }),
    );
    const theirs = rows.map((row) => ({
      row: [row.table, row.model, row.method, row.rank, row.trainableParams, row.avg],
      cells: row.tasks,
      wrongAverage: row.avgOffByMoreThan0_1 ?? false,
      corrected: row.labelCorrected,
      permuted: row.suspectedRepair !== undefined,
      unattainable: row.suspectedRepair
        ? []
        : (row.cellsNotAttainableAsRoundedKoverN ?? []).map(({ task }) => task),
    }));
    expect(ours).toEqual(theirs);
  });
});
