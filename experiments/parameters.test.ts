import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { paperRecipe } from "../src/training/recipe.ts";
import { type PaperModel, paperModels } from "./models.ts";
import { type PaperTable, publishedTable } from "./paper.ts";
import { inMillions, methodOfTitle, trainedParameters } from "./parameters.ts";

const targets = { 3: paperRecipe.targets, 4: paperRecipe.targets, 5: ["all-linear"] };

function counted(table: PaperTable): { label: string; printed: string; count: number }[] {
  return publishedTable(table)
    .filter((row) => row.trained !== null)
    .map(({ model, method, rank, trained }) => ({
      label: `${model} ${method} ${rank}`,
      printed: trained!.text,
      count: trainedParameters(
        paperModels[model as PaperModel],
        methodOfTitle(method)!,
        rank!,
        targets[table],
      ),
    }));
}

describe("trained parameters of Tables 3 to 5", () => {
  test("the paper's 72 cells are what our shapes give; Table 5 prints half of it", () => {
    const cells = [...counted(3), ...counted(4), ...counted(5).map((c) => ({ ...c, count: c.count / 2 }))];
    expect(cells).toHaveLength(72);
    expect(cells.map(({ label, count }) => `${label} ${inMillions(count)}`)).toEqual(
      cells.map(({ label, printed }) => `${label} ${printed}`),
    );
  });

  // Protocol §4.5, exact.
  test.each([
    ["LLaMA-7B", "lora", 32, 3, 56_098_816],
    ["LLaMA-7B", "dora", 64, 3, 113_074_176],
    ["LLaMA3-8B", "oa", 32, 3, 25_165_824],
    ["LLaMA3-8B", "lora-fa", 32, 3, 25_165_824],
    ["LLaMA3-8B", "sbora-fa", 32, 3, 25_165_824],
    ["LLaMA3-8B", "sbora-fb", 64, 3, 62_914_560],
    ["LLaMA-13B", "dora", 64, 5, 252_477_440],
    ["LLaMA-13B", "sbora-fb", 128, 5, 228_065_280],
  ] as const)("%s %s r=%d in Table %d", (model, method, rank, table, expected) => {
    expect(trainedParameters(paperModels[model], method, rank, targets[table])).toBe(expected);
  });

  const reference = join(import.meta.dir, "../../shared/paper-tables.json");
  test.skipIf(!existsSync(reference))("all cells equal paper-tables.json exactly", () => {
    const { rows } = JSON.parse(readFileSync(reference, "utf8")) as {
      rows: { table: string; model: string; method: string; rank: number; trainableParamsExact?: number }[];
    };
    const exact = rows.filter((row) => row.trainableParamsExact !== undefined);
    expect(exact).toHaveLength(72);
    const ours = ([3, 4, 5] as const).flatMap((table) =>
      counted(table).map((cell) => `${table} ${cell.label} ${cell.count}`),
    );
    const theirs = exact.map(
      (row) => `${row.table} ${row.model} ${row.method} ${row.rank} ${row.trainableParamsExact}`,
    );
    expect(ours).toEqual(theirs);
  });
});
