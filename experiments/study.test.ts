import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import { readJsonObject } from "../src/formats/files.ts";
import { openPlanningDevice } from "../src/native/planning-device.ts";
import { recipeHash } from "../src/training/recipe.ts";
import { type CellFile, readCell } from "./cell-file.ts";
import { wholeList } from "./number-lists.ts";
import { presets, SCALING } from "./recipes/table3.ts";
import { countShared, sharedQuestions } from "./shared-questions.ts";
import { openStudy, type StudyFlags } from "./study.ts";
import { arithmetic, commonsense } from "./task-tables.ts";

const results = join(import.meta.dir, "../results/table3/small");
const committed = existsSync(results) ? readdirSync(results).filter((name) => /-s\d+\.json$/.test(name)) : [];
const dir = mkdtempSync(join(tmpdir(), "sbora-study-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function flagsFor(changes: Partial<StudyFlags>): StudyFlags {
  const none = { model: null, data: null, methods: null, ranks: null, seeds: null, steps: null };
  return {
    ...none,
    learningRate: null,
    limit: null,
    tasks: null,
    beams: null,
    compute: null,
    out: dir,
    ...changes,
  };
}

// Cells that took an hour each must be found finished by whatever becomes of the code around them.
describe("the committed cells of Table 3", () => {
  test.each(committed)("%s is what the preset asks for today", (name) => {
    const { recipe, recipeHash: stored } = readJsonObject(join(results, name)) as unknown as CellFile;
    const [, method, rank, seed] = /-([a-z-]+)-r(\d+)-s(\d+)\.json$/.exec(name.replace("smollm2-135m", ""))!;
    const { training, evaluation } = presets.small;
    const own = { method, rank: Number(rank), alpha: SCALING * Number(rank), seed: Number(seed) };
    const asked = {
      table: "table3",
      preset: "small",
      training: method === "base" ? null : { ...training, ...own },
      evaluation,
      heldOut: { records: training.valSize, seed: Number(seed), cutoff: training.cutoff },
      inputs: recipe.inputs,
    };
    expect(recipeHash(asked)).toBe(stored);
  });

  const model = "/work/models/smollm2-135m";
  const data = join(import.meta.dir, "../../shared/data/llm-adapters");
  const here = committed.length > 0 && existsSync(model) && existsSync(data);
  test.skipIf(!here)("a study opened on the model and the data finds them finished", () => {
    const flags = flagsFor({ model, data, out: results, seeds: [42] });
    const { cells } = openStudy(openPlanningDevice(), commonsense, presets.small, flags);
    const found = cells.filter(({ place, recipe }) => readCell(place, recipe) !== null);
    expect(found.map(({ place }) => `${place.name}.json`).sort()).toEqual(
      committed.filter((name) => name.endsWith("-s42.json")).sort(),
    );
  });
});

describe("Table 4", () => {
  test("--limit holds for all sets", () => {
    const limits = (limit: number | null) => {
      const { tests } = openStudy(
        openPlanningDevice(),
        arithmetic,
        arithmetic.presets.tiny,
        flagsFor({ limit }),
      );
      return ["gsm8k", "AddSub"].map((name) => tests.get(name)?.length);
    };
    expect(limits(null)).toEqual([60, 60]);
    expect(limits(20)).toEqual([20, 20]);
  });

  test("seed by seed, every method: a stopped run leaves whole tables", () => {
    const flags = flagsFor({ methods: ["lora", "sbora-fa"], seeds: [1, 2] });
    const { cells } = openStudy(openPlanningDevice(), arithmetic, arithmetic.presets.tiny, flags);
    expect(cells.map(({ place }) => place.name.replace("tiny-", ""))).toEqual([
      "base-r0-s1",
      "lora-r8-s1",
      "sbora-fa-r8-s1",
      "lora-r8-s2",
      "sbora-fa-r8-s2",
    ]);
  });

  test("full fine-tuning: one cell whatever the ranks, and no dropout in its recipe", () => {
    const flags = flagsFor({ methods: ["lora", "full"], ranks: [8, 16] });
    const { cells } = openStudy(openPlanningDevice(), arithmetic, arithmetic.presets.tiny, flags);
    const recipes = cells.flatMap(({ recipe }) => recipe.training ?? []);
    expect(recipes.map(({ method, rank, dropout }) => [method, rank, dropout])).toEqual([
      ["lora", 8, 0.05],
      ["full", 8, 0],
      ["lora", 16, 0.05],
    ]);
  });

  test("no test question of the tiny sums stands in their training file; a copied one is found", () => {
    const study = openStudy(openPlanningDevice(), arithmetic, arithmetic.presets.tiny, flagsFor({}));
    const [sentence] = sharedQuestions(study);
    expect(sentence!.match(/ 0 of 60/g)).toHaveLength(6);
    const one = (instruction: string) => ({ instruction });
    expect(countShared([one("How many, in all?")], [one("how many in all"), one("how much")])).toBe(1);
  });
});

describe("number lists", () => {
  const read = (seeds: string): number[] | null => wholeList({ seeds }, "seeds", 0);
  test("numbers, ranges, each once", () => {
    expect(read("1..3,7, 2")).toEqual([1, 2, 3, 7]);
    expect(wholeList({}, "seeds", 0)).toBeNull();
  });

  test.each(["3..1", "1..", "1.5", "-1", "x", "0..5000", "1...3"])("%s is refused", (text) => {
    expect(() => read(text)).toThrow(InputError);
  });
});
