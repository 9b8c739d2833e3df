import { describe, expect, test } from "bun:test";
import type { MultiCell } from "./multi-sbora-cell.ts";
import {
  claimsOf,
  gained,
  keeps,
  lost,
  type MultiOutcome,
  type Run,
  shareLost,
  shareLostLess,
  type VariantRuns,
} from "./multi-sbora-claims.ts";
import type { Variant } from "./multi-sbora-study.ts";

const TASK = "piqa";
const TASKS = [TASK];

/** "1101": which records were answered right; nats a record beside it, two tokens each. */
function outcome(
  right: string,
  nats: readonly number[] = [...right].map((r) => 2 - Number(r)),
): MultiOutcome {
  const predictions = [...right].map((r, record) => ({
    task: TASK,
    record,
    label: "a",
    correct: r === "1",
  }));
  const heldOut = { loss: 0, record: nats.map((_, i) => i), tokens: nats.map(() => 2), nats };
  return { cell: { tasks: { sets: {}, heldOut: { [TASK]: heldOut } } } as unknown as MultiCell, predictions };
}

function variant(
  draw: Variant["draw"],
  runs: readonly [base: string, alone: string, merged: string][],
): VariantRuns {
  const method = draw ? "sbora-fa" : "lora";
  return {
    variant: { method, draw, title: `${method} ${draw}` },
    runs: runs.map(
      ([base, alone, merged]): Run => ({
        base: outcome(base),
        alone: new Map([[TASK, outcome(alone)]]),
        merged: outcome(merged),
      }),
    ),
  };
}

describe("what merging costs", () => {
  const own = variant("disjoint", [["00000000", "11111111", "11111100"]]);

  test("alone minus merged, paired on the records, by both rulers", () => {
    // d = 0 six times, 100 twice: mean 25, s² = Σ(d − 25)²/7
    const error = Math.sqrt((6 * 25 ** 2 + 2 * 75 ** 2) / 7 / 8);
    expect(lost(own, TASKS, "accuracy").value).toBeCloseTo(25, 12);
    expect(lost(own, TASKS, "accuracy").standardError).toBeCloseTo(error, 12);
    // A wrong answer costs 1 nat more, a record has 2 tokens.
    expect(lost(own, TASKS, "loss").value).toBeCloseTo(0.125, 12);
    expect(lost(own, TASKS, "loss").standardError).toBeCloseTo(error / 200, 12);
    expect(gained(own, TASKS, "loss").value).toBeCloseTo(0.5, 12);
  });

  test("where all records agree, the error is that of one of them", () => {
    const same = variant("disjoint", [["0000", "1111", "1111"]]);
    expect(lost(same, TASKS, "accuracy")).toMatchObject({ value: 0, standardError: 25 });
  });

  test("a share of the gain, and its error by the delta method", () => {
    const share = shareLost(own, TASKS, "accuracy")!;
    expect(share.value).toBeCloseTo(25, 12);
    // The gain is 100 at every record, so that the share's error is the loss's.
    expect(share.standardError).toBeCloseTo(lost(own, TASKS, "accuracy").standardError, 12);
    const nothing = variant("disjoint", [["0101", "0101", "0000"]]);
    expect(shareLost(nothing, TASKS, "accuracy")).toBeNull();
  });

  test("seeds: records are averaged, and the spread over seeds widens the interval", () => {
    const seeds = variant(null, [
      ["00000000", "11111111", "11111111"],
      ["00000000", "11111111", "11110000"],
    ]);
    const both = lost(seeds, TASKS, "accuracy");
    expect(both.value).toBeCloseTo(25, 12);
    // 0 and 50: the standard error of their mean is 25, Student's factor for one degree of freedom 12.7.
    expect(both.halfWidth).toBeGreaterThan(300);
  });

  test("one variant against another on the same records", () => {
    const other = variant(null, [["00000000", "11111111", "11000000"]]);
    const difference = shareLostLess(own, other, TASKS, "accuracy")!;
    // The other lost 75 % of its gain; four records came out differently.
    expect(difference.value).toBeCloseTo(50, 12);
    expect(difference.standardError).toBeCloseTo(Math.sqrt((8 * 50 ** 2) / 7 / 8), 12);
    const claims = claimsOf([own, other], TASKS);
    expect(claims.map(({ claim }) => claim)).toEqual([
      "sbora-fa disjoint: merged, the tasks keep 95 % of what they gained",
      "lora null: merged, the tasks keep 95 % of what they gained",
      "sbora-fa disjoint loses less of its gain than lora null",
    ]);
    expect(claims.map(({ by }) => by.accuracy.verdict)).toEqual(["cannot be told", "does not hold", "holds"]);
  });

  test("verdicts: below 5 % beyond doubt, above it beyond doubt, or neither", () => {
    const share = (value: number, halfWidth: number) => ({ value, halfWidth, standardError: halfWidth / 2 });
    expect(keeps(share(1, 3))).toBe("holds");
    expect(keeps(share(-4, 3))).toBe("holds");
    expect(keeps(share(1, 6))).toBe("cannot be told");
    expect(keeps(share(9, 6))).toBe("cannot be told");
    expect(keeps(share(12, 6))).toBe("does not hold");
    expect(keeps(null)).toBe("cannot be told");
  });
});
