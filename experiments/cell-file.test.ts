import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import { paperRecipe, recipeHash } from "../src/training/recipe.ts";
import {
  type CellFile,
  type CellRecipe,
  cellPlace,
  readCell,
  readPredictions,
  writeCell,
} from "./cell-file.ts";
import { presets } from "./recipes/table3.ts";
import { resultOf } from "./run-cell.ts";
import { chosenGroups } from "./study.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-cell-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const recipe: CellRecipe = {
  table: "table3",
  preset: "tiny",
  training: paperRecipe,
  evaluation: presets.tiny.evaluation,
  heldOut: { records: 60, seed: 42, cutoff: 96 },
  inputs: { base: "b", tokenizer: "t", prompt: "p", training: "d", tests: { boolq: "x", hellaswag: null } },
};

const predictions = [
  {
    task: "boolq",
    record: 0,
    label: "true",
    text: "the correct answer is true",
    parsed: "true",
    correct: true,
  },
  { task: "boolq", record: 1, label: "false", text: "", parsed: "", correct: false },
];

function cellOf(of: CellRecipe): CellFile {
  return {
    schemaVersion: 1,
    recipe: of,
    recipeHash: recipeHash(of),
    manifest: {
      sbora: "0",
      commit: null,
      bun: "1",
      platform: "p",
      processor: "c",
      isa: "i",
      data: {},
      model: { name: "m", fingerprint: "b" },
      trained: null,
    },
    tasks: { sets: { boolq: resultOf(predictions), hellaswag: null }, heldOut: null },
    timing: {
      command: "c",
      threads: 1,
      trainSeconds: 0,
      stepSeconds: 0,
      tokensPerSecond: 0,
      evaluateSeconds: 0,
      finished: "now",
    },
  };
}

describe("cell files", () => {
  test("a cell that is not there is null; a written one comes back with its predictions", () => {
    const place = cellPlace(dir, "tiny-lora-r32-s42");
    expect(readCell(place, recipe)).toBeNull();
    writeCell(place, cellOf(recipe), predictions);
    expect(readCell(place, recipe)).toEqual(cellOf(recipe));
    expect(readPredictions(place)).toEqual(predictions);
    expect(readdirSync(dir).sort()).toEqual(["tiny-lora-r32-s42.json", "tiny-lora-r32-s42.jsonl"]);
  });

  test("another recipe's cell is refused, with what differs, and left as it was", () => {
    const place = cellPlace(dir, "tiny-lora-r32-s42");
    const other = { ...recipe, training: { ...paperRecipe, learningRate: 1e-3 } };
    const error = (() => {
      try {
        readCell(place, other);
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toBeInstanceOf(InputError);
    expect((error as Error).message).toContain("training.learningRate (0.0002, now 0.001)");
    expect(readCell(place, recipe)).not.toBeNull();
  });

  test("a test set that has appeared or changed is another recipe", () => {
    const place = cellPlace(dir, "tiny-lora-r32-s42");
    const tests = { boolq: "x", hellaswag: "new" };
    expect(() => readCell(place, { ...recipe, inputs: { ...recipe.inputs, tests } })).toThrow(
      "inputs.tests.hellaswag",
    );
  });

  test("a file that was cut or changed is named, and what to do about it", () => {
    const place = cellPlace(dir, "tiny-dora-r32-s42");
    const whole = cellOf(recipe);
    const broken: [unknown, string][] = [
      [JSON.stringify(whole).slice(0, -20), "not valid JSON"],
      [JSON.stringify([whole]), "a JSON object at the top level"],
      [JSON.stringify({ ...whole, tasks: undefined }), "this is no cell: tasks missing"],
      [
        JSON.stringify({ ...whole, recipe: { ...recipe, preset: "small" } }),
        "recipeHash is not the recipe's",
      ],
    ];
    for (const [text, problem] of broken) {
      writeFileSync(place.json, `${text}`);
      const read = () => readCell(place, recipe);
      expect(read).toThrow(InputError);
      expect(read).toThrow(problem);
      expect(read).toThrow("delete it, and the same command makes the cell again");
    }
    rmSync(place.json);
  });

  test("predictions that are missing or damaged are named", () => {
    const place = cellPlace(dir, "tiny-oa-r32-s42");
    expect(() => readPredictions(place)).toThrow(place.predictions);
    writeFileSync(place.predictions, '{"task":"boolq"}\n{"tas');
    expect(() => readPredictions(place)).toThrow("JSON Lines");
    expect(existsSync(place.json)).toBe(false);
  });

  test("a folder that cannot be made is an error of the user", () => {
    const blocked = join(dir, "file");
    writeFileSync(blocked, "");
    expect(() => writeCell(cellPlace(blocked, "x"), cellOf(recipe), [])).toThrow(InputError);
  });
});

test("figures of a task: accuracy, standard error, share parsed, majority", () => {
  const result = resultOf(predictions);
  expect(result.scores.generation).toEqual({
    correct: 1,
    accuracy: 50,
    standardError: 100 * Math.sqrt(0.25 / 2),
  });
  expect(result.parsed).toBe(50);
  expect(result.majority).toEqual({ label: "false", accuracy: 50 });
  expect(result.scores.labels).toBeUndefined();
});

describe("which cells", () => {
  const flags = { methods: null, ranks: null };

  test("the preset's groups", () => {
    expect(chosenGroups(presets.small, flags)).toEqual([...presets.small.groups]);
  });

  test("--methods picks out of the groups, or adds at the first group's ranks", () => {
    expect(chosenGroups(presets.small, { ...flags, methods: ["sbora-fa", "full"] })).toEqual([
      { methods: ["sbora-fa"], ranks: [32] },
      { methods: ["sbora-fa"], ranks: [64] },
      { methods: ["full"], ranks: [32] },
    ]);
  });

  test("--ranks gives every method the same ranks", () => {
    expect(chosenGroups(presets.small, { methods: ["oa"], ranks: [4, 8] })).toEqual([
      { methods: ["oa"], ranks: [4, 8] },
    ]);
  });

  test("a method named twice is trained once", () => {
    expect(chosenGroups(presets.tiny, { ...flags, methods: ["oa", "oa"] })).toEqual([
      { methods: ["oa"], ranks: [8] },
    ]);
  });

  test("an unknown method is named with the list", () => {
    expect(() => chosenGroups(presets.tiny, { ...flags, methods: ["lorra"] })).toThrow(/lorra.*sbora-fa/);
  });
});
