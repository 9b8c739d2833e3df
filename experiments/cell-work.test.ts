import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import type { Prediction } from "../src/evaluation/run.ts";
import { cellPlace, readLosses } from "./cell-file.ts";
import { finishCell, keptPredictions, stepsIn } from "./cell-work.ts";

const dir = mkdtempSync(join(tmpdir(), "sbora-work-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const predictions: Prediction[] = [{ record: 0, label: "A", likeliestLabel: "B" }];

describe("predictions of a test set", () => {
  const place = cellPlace(dir, "kept");
  let made = 0;
  const ask = (recipe: object): Promise<Prediction[]> =>
    keptPredictions(place, recipe, "val/virology", async () => {
      made++;
      return predictions;
    });

  test("are made once a recipe", async () => {
    for (const [recipe, times] of [
      [{ seed: 1 }, 1],
      [{ seed: 1 }, 1],
      [{ seed: 2 }, 2],
      [{ seed: 2 }, 2],
    ] as const) {
      expect(await ask(recipe)).toEqual(predictions);
      expect(made).toBe(times);
    }
  });

  test("that somebody cut are an error which names the file", async () => {
    const path = join(place.work, "evaluated", "val-virology.json");
    writeFileSync(path, '{"recipeHash": ');
    expect(ask({ seed: 2 })).rejects.toThrow(InputError);
    expect(ask({ seed: 2 })).rejects.toThrow(path);
  });

  test("an evaluation that fails keeps nothing", async () => {
    const failing = keptPredictions(place, {}, "test/virology", () => Promise.reject(new Error("no memory")));
    expect(failing).rejects.toThrow("no memory");
    expect(readdirSync(join(place.work, "evaluated"))).toEqual(["val-virology.json"]);
  });
});

const stepLines = (...steps: number[]): string =>
  steps.map((step) => `${JSON.stringify({ step, loss: 1 })}\n`).join("");

test("steps of a run: every one, in order, once; whatever else stands there is named by its line", () => {
  const path = join(dir, "metrics.jsonl");
  writeFileSync(path, stepLines(1, 2, 3));
  expect(stepsIn(path).map(({ step }) => step)).toEqual([1, 2, 3]);
  for (const [text, line] of [
    // As two runs write into one folder.
    [stepLines(1, 2, 2, 3), 3],
    [stepLines(2, 3), 1],
    [stepLines(1, 3), 2],
    [`${stepLines(1)}{"step": 2, "lo`, 2],
  ] as const) {
    writeFileSync(path, text);
    expect(() => stepsIn(path)).toThrow(`line ${line} is not step ${line}`);
    expect(() => stepsIn(path)).toThrow(InputError);
  }
});

test("a finished cell: what only a resumed run would need goes, adapter and metrics stay", () => {
  const place = cellPlace(dir, "finished");
  const train = join(place.work, "train");
  for (const folder of ["checkpoint", "last"]) mkdirSync(join(train, folder), { recursive: true });
  mkdirSync(join(place.work, "evaluated"));
  writeFileSync(join(train, "metrics.jsonl"), stepLines(1, 2));
  finishCell(place, { schemaVersion: 1, recipe: {}, recipeHash: "" }, [
    { task: "boolq", ...predictions[0]! },
  ]);
  expect(readdirSync(place.work)).toEqual(["train"]);
  expect(readdirSync(train).sort()).toEqual(["last", "metrics.jsonl"]);
  expect(readLosses(place)).toHaveLength(2);
  expect(existsSync(place.json) && existsSync(place.predictions)).toBe(true);
});
