import { expect, test } from "bun:test";
import type { CellFile, StoredPrediction } from "./cell-file.ts";
import { resultOf } from "./run-cell.ts";
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
  expect(figure.seedError).toBeCloseTo(25, 10);
  expect(taskFigure(lora, "hellaswag", "generation")).toBeNull();
  expect(taskFigure(lora, "boolq", "labels")).toBeNull();
});

test("the average is the plain mean of the tasks that are there", () => {
  expect(averageFigure(lora, tasks, "generation")!.value).toBe((50 + 75) / 2);
  expect(averageFigure(base, tasks, "generation")).toEqual({
    value: 0,
    standardError: 0,
    seedError: null,
  });
  expect(averageFigure(lora, ["hellaswag"], "generation")).toBeNull();
});

test("differences are paired record by record, seed by seed", () => {
  const difference = pairedAverage(sbora, lora, tasks, "generation")!;
  // Seed 1: +1/4 on boolq, 0 on piqa; seed 2: +1/4 on boolq, -1/2 on piqa.
  const [first, second] = [12.5, -12.5];
  expect(difference.value).toBeCloseTo((first + second) / 2, 10);
  expect(difference.seedError).toBeCloseTo((first - second) / 2, 10);
  // Means over seeds, by record: boolq 0, 50, 0, 50; piqa -50, 0.
  const [boolq, piqa] = [Math.sqrt(2500 / 3 / 4), Math.sqrt(1250 / 2)];
  expect(difference.standardError).toBeCloseTo(Math.hypot(boolq, piqa) / 2, 10);
  // Student's factor with one degree of freedom.
  expect(difference.halfWidth).toBeCloseTo(Math.hypot(1.96 * difference.standardError, 12.706 * 12.5), 2);
  expect(difference.pairs).toBe(2);
});

test("a row against itself differs by nothing; the base stands against every seed", () => {
  expect(pairedAverage(lora, lora, tasks, "generation")).toMatchObject({
    value: 0,
    standardError: 0,
    halfWidth: 0,
  });
  const gained = pairedAverage(lora, base, tasks, "generation")!;
  expect([gained.value, gained.pairs]).toEqual([(75 + 50 + 25 + 100) / 4, 2]);
  expect(pairedAverage(lora, base, ["hellaswag"], "generation")).toBeNull();
});

test("one pair of runs has the records' error alone", () => {
  const [a, b] = rowsOf([
    outcome("sbora-fa", 1, { boolq: [yes, yes, yes, no] }),
    outcome("lora", 1, { boolq: [yes, no, no, no] }),
  ]) as [(typeof rows)[number], (typeof rows)[number]];
  const { value, standardError, seedError, halfWidth } = pairedAverage(a, b, tasks, "generation")!;
  // Differences 0, 100, 100, 0.
  expect([value, seedError]).toEqual([50, null]);
  expect(standardError).toBeCloseTo(Math.sqrt(10_000 / 3 / 4), 10);
  expect(halfWidth).toBeCloseTo(1.96 * standardError, 10);
});
