import { describe, expect, test } from "bun:test";
import type { Prediction } from "./run.ts";
import { isRight, majority, pairedDifference, parsedShare, scoreOf } from "./score.ts";

const generated = (right: readonly boolean[]): Prediction[] =>
  right.map((correct, record) => ({ record, label: "a", text: "x", parsed: correct ? "a" : "", correct }));

describe("scoreOf", () => {
  test("percent and binomial standard error", () => {
    const score = scoreOf(generated([true, true, true, false]), "generation")!;
    expect(score).toMatchObject({ n: 4, correct: 3, accuracy: 75 });
    expect(score.standardError).toBeCloseTo(100 * Math.sqrt((0.75 * 0.25) / 4), 10);
  });

  test("the protocol's standard errors", () => {
    const boolq = scoreOf(generated(Array.from({ length: 3270 }, (_, i) => i < 2354)), "generation")!;
    expect(boolq.standardError).toBeCloseTo(0.8, 1);
  });

  test("a ruler that was not applied has no score", () => {
    expect(scoreOf(generated([true]), "options")).toBeNull();
    expect(scoreOf([], "generation")).toBeNull();
  });

  test("every measure reads its own field", () => {
    const p: Prediction = {
      record: 0,
      label: "a",
      option: "a",
      optionPerCharacter: "b",
      likeliestLabel: "a",
    };
    expect(["generation", "options", "perCharacter", "labels"].map((m) => isRight(p, m as "labels"))).toEqual(
      [null, true, false, true],
    );
  });
});

test("parsedShare counts responses in which an answer was found", () => {
  expect(parsedShare(generated([true, false, false, false]))).toBe(25);
  expect(parsedShare([{ record: 0, label: "a" }])).toBeNull();
});

test("majority", () => {
  expect(majority(["b", "a", "b", "a", "b"])).toEqual({ label: "b", accuracy: 60 });
  expect(majority(["b", "a"])).toEqual({ label: "a", accuracy: 50 });
  expect(majority([])).toEqual({ label: "", accuracy: 0 });
});

describe("pairedDifference", () => {
  test("only the records that both have", () => {
    const a = generated([true, true, false, true]);
    const b = generated([true, false, false]);
    const paired = pairedDifference(a, b, "generation")!;
    expect(paired).toMatchObject({ n: 3, onlyA: 1, onlyB: 0 });
    expect(paired.difference).toBeCloseTo(100 / 3, 10);
    // differences 0, 1, 0: sample variance 1/3
    expect(paired.standardError).toBeCloseTo(100 * Math.sqrt(1 / 3 / 3), 10);
  });

  test("equal predictions differ by nothing, without error", () => {
    const a = generated([true, false, true]);
    expect(pairedDifference(a, a, "generation")).toMatchObject({ difference: 0, standardError: 0 });
    expect(pairedDifference(a, [], "generation")).toBeNull();
  });
});
