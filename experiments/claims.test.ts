import { expect, test } from "bun:test";
import { lettersOf } from "./aqua-rules.ts";
import type { CellFile, StoredPrediction } from "./cell-file.ts";
import { aboveZero, signed } from "./claims.ts";
import { resultOf } from "./run-cell.ts";
import { type Outcome, rowsOf } from "./summary.ts";
import { tableClaims } from "./table-claims.ts";
import { arithmetic, commonsense } from "./task-tables.ts";

function outcome(method: string, rank: number, parameters: number, right: readonly boolean[]): Outcome {
  const predictions = right.map(
    (correct, record): StoredPrediction => ({ task: "boolq", record, label: "true", parsed: "x", correct }),
  );
  const cell = {
    recipe: { training: { method, rank, seed: 1 } },
    manifest: { trained: { parameters } },
    tasks: { sets: { boolq: resultOf(predictions) } },
  };
  return { predictions, cell: cell as unknown as CellFile };
}

test("a verdict is given where the interval lies on one side of zero", () => {
  expect(aboveZero({ value: 2, halfWidth: 1 })).toBe("holds");
  expect(aboveZero({ value: -2, halfWidth: 1 })).toBe("does not hold");
  expect(aboveZero({ value: 0.5, halfWidth: 1 })).toBe("cannot be told");
  expect(aboveZero({ value: 1, halfWidth: 1 })).toBe("cannot be told");
});

test("a zero has no sign", () => {
  expect([signed(0.04), signed(-0.04), signed(1.25), signed(-3)]).toEqual(["0.0", "0.0", "+1.3", "-3.0"]);
});

test("SBoRA-FA against the others: parameters counted, accuracies by their paired interval", () => {
  const half = Array.from({ length: 100 }, (_, i) => i < 50);
  const more = half.map((right, i) => right || i < 80);
  const section = tableClaims({
    table: commonsense,
    modelName: "m",
    accuracies: true,
    tasks: ["boolq"],
    columns: ["BoolQ"],
    rows: rowsOf([
      outcome("lora", 32, 100, half),
      outcome("sbora-fb", 32, 60, more),
      outcome("sbora-fa", 32, 51, more),
      outcome("sbora-fa", 64, 102, half),
    ]),
    measures: [["generation", "generated answers"]],
  })!;
  expect(section.table!.rows.map((row) => row.slice(0, 2))).toEqual([
    ["SBoRA-FA 32 trains at most half of LoRA 32's parameters", "does not hold"],
    ["SBoRA-FA 32 above LoRA 32: generated answers", "holds"],
    ["SBoRA-FA 32 above SBoRA-FB 32: generated answers", "cannot be told"],
    ["SBoRA-FA 64 above LoRA 32: generated answers", "cannot be told"],
  ]);
  expect(section.table!.rows[1]![2]).toMatch(/^\+30\.0 ± 9\.0 points, 1 seed$/);
  // The paper's BoolQ at r=32: 68.0 - 66.8 and 73.3 - 71.9.
  expect(section.table!.rows[1]![3]).toBe("+1.2 (LLaMA-7B), +1.4 (LLaMA3-8B)");
});

test("made-up questions test no claim but the number of parameters", () => {
  const section = tableClaims({
    table: commonsense,
    modelName: "tiny",
    accuracies: false,
    tasks: ["boolq"],
    columns: ["BoolQ"],
    rows: rowsOf([outcome("lora", 32, 100, [true]), outcome("sbora-fa", 32, 50, [false])]),
    measures: [["generation", "generated answers"]],
  })!;
  expect(section.table!.rows.map((row) => row[1])).toEqual(["holds"]);
  expect(section.paragraphs.join()).toContain("made-up");
});

test("without SBoRA-FA there is nothing to claim", () => {
  const rows = rowsOf([outcome("lora", 32, 1, [true])]);
  const input = { table: arithmetic, modelName: "m", tasks: ["boolq"], columns: [], rows, measures: [] };
  expect(tableClaims({ ...input, accuracies: true })).toBeNull();
});

test("AQuA: the published and the strict rule read the same responses", () => {
  const answer = (label: string, text: string, correct: boolean): StoredPrediction => ({
    task: "AQuA",
    record: 0,
    label,
    text,
    parsed: "x",
    correct,
  });
  const predictions = [
    answer("C", "By algebra, the answer is (C).", false),
    answer("B", "By algebra, the answer is (C).", true),
    answer("A", "Answer: B", true),
    answer("D", "the answer is D", true),
  ];
  const cell = { recipe: { training: null } } as unknown as CellFile;
  const [row] = rowsOf([{ predictions, cell }]);
  expect(lettersOf(row!)).toEqual({ published: 75, strict: 50, found: 75 });
  expect(lettersOf(rowsOf([{ predictions: [], cell }])[0]!)).toBeNull();
});
