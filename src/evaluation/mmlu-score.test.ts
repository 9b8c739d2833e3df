import { expect, test } from "bun:test";
import { oneLetterOf, summarizeMmlu } from "./mmlu-score.ts";
import type { Prediction } from "./run.ts";

/** One prediction a pair "right letter, chosen letter". */
function predictions(pairs: string, nats: number): Prediction[] {
  return pairs.split(" ").map(
    ([label, likeliestLabel], record): Prediction => ({
      record,
      label: label!,
      likeliestLabel: likeliestLabel!,
      labelNats: nats,
    }),
  );
}

test("macro is the mean over subjects, pooled that over questions", () => {
  const summary = summarizeMmlu(
    new Map([
      ["small", predictions("AA BA", 1)],
      ["large", predictions("AA BB CC DD AB AB AB AB", 2)],
    ]),
  );
  expect([summary.questions, summary.spacedLabels]).toEqual([10, null]);
  const { macro, pooled, nats } = summary.labels;
  expect([macro.accuracy, pooled.accuracy, nats]).toEqual([50, 50, 1.5]);
  const skewed = summarizeMmlu(
    new Map([
      ["small", predictions("AA BB", 1)],
      ["large", predictions("AA BB AB AB AB AB AB AB", 2)],
    ]),
  ).labels;
  expect([skewed.macro.accuracy, skewed.pooled.accuracy]).toEqual([(100 + 25) / 2, 40]);
  // Of the small subject 0, of the large √(¼·¾/8), halved; of all √(0.4·0.6/10).
  expect(skewed.macro.standardError).toBeCloseTo((100 * Math.sqrt(3 / 16 / 8)) / 2, 10);
  expect(skewed.pooled.standardError).toBeCloseTo(100 * Math.sqrt(0.024), 10);
});

test("the best single letter is chosen once for all subjects", () => {
  const { letter, macro, pooled } = oneLetterOf([["A", "B"], "BBAA".split(""), ["B"]]);
  expect(letter).toBe("B");
  expect(macro).toBeCloseTo(200 / 3, 10);
  expect(pooled).toBeCloseTo(400 / 7, 10);
});
