import { expect, test } from "bun:test";
import { resultOf } from "./cell.ts";
import type { CellFile, StoredPrediction } from "./cell-file.ts";
import { averageFigure, type Outcome, pairedAverage, rowsOf, taskFigure } from "./summary.ts";

/** A cell whose answers on two tasks are right where `right` says so. */
function outcome(method: string, seed: number, right: Record<string, boolean[]>): Outcome {
  const predictions = Object.entries(right).flatMap(([task, list]) =>
    list.map((correct, record): StoredPrediction => ({ task, record, label: "a", parsed: "a", correct })),
  );
  const sets = Object.fromEntries(
    Object.keys(right).map((task) => [task, resultOf(predictions.filter((p) => p.task === task))]),
  );
  const training = method === "base" ? null : { method, rank: 8, seed };
  return {
    predictions,
    cell: { recipe: { training }, tasks: { sets: { ...sets, hellaswag: null } } } as unknown as CellFile,
  };
}

const yes = true;
const no = false;
const tasks = ["boolq", "piqa", "hellaswag"];
const rows = rowsOf([
  outcome("base", 1, { boolq: [no, no, no, no], piqa: [no, no] }),
  outcome("lora", 1, { boolq: [yes, yes, yes, no], piqa: [yes, no] }),
  outcome("lora", 2, { boolq: [yes, no, no, no], piqa: [yes, yes] }),
  outcome("sbora-fa", 1, { boolq: [yes, yes, yes, yes], piqa: [yes, no] }),
  outcome("sbora-fa", 2, { boolq: [yes, yes, no, no], piqa: [no, yes] }),
]);
const [base, lora, sbora] = rows as [(typeof rows)[number], (typeof rows)[number], (typeof rows)[number]];

test("seeds of a method are one row, in the order they came", () => {
  expect(rows.map(({ method, outcomes }) => [method, outcomes.length])).toEqual([
    ["base", 1],
    ["lora", 2],
    ["sbora-fa", 2],
  ]);
});

test("a task's figure is the mean over seeds; a missing set has none", () => {
  const figure = taskFigure(lora, "boolq", "generation")!;
  expect(figure.value).toBe(50);
  // 75 % and 25 % of four records.
  expect(figure.standardError).toBeCloseTo(100 * Math.sqrt(0.1875 / 4), 10);
  expect(figure.seedDeviation).toBeCloseTo(Math.sqrt(2 * 25 ** 2), 10);
  expect(taskFigure(lora, "hellaswag", "generation")).toBeNull();
  expect(taskFigure(lora, "boolq", "labels")).toBeNull();
});

test("the average is the plain mean of the tasks that are there", () => {
  expect(averageFigure(lora, tasks, "generation")!.value).toBe((50 + 75) / 2);
  expect(averageFigure(base, tasks, "generation")).toEqual({
    value: 0,
    standardError: 0,
    seedDeviation: null,
  });
  expect(averageFigure(lora, ["hellaswag"], "generation")).toBeNull();
});

test("differences are paired record by record, seed by seed", () => {
  const difference = pairedAverage(sbora, lora, tasks, "generation")!;
  // Seed 1: +1/4 on boolq, 0 on piqa; seed 2: +1/4 on boolq, -1/2 on piqa.
  expect(difference.value).toBeCloseTo((100 * (0.25 / 2 + (0.25 - 0.5) / 2)) / 2, 10);
  expect(pairedAverage(lora, lora, tasks, "generation")).toEqual({ value: 0, standardError: 0 });
});
