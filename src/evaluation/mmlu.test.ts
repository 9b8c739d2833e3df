import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { MmluSubject } from "../data/mmlu.ts";
import { closeRig, openRig, packed, type Rig } from "../model/testing.ts";
import { logitsPass } from "../model/train-pass.ts";
import { encodeMmlu, letterIds, type MmluOptions, scoreMmlu } from "./mmlu.ts";

/** One token a character, 1 in front of every text. */
const characters = {
  bosId: 1,
  encode: (text: string): number[] => [1, ...characters.encodeWithoutBos(text)],
  encodeWithoutBos: (text: string): number[] => [...text].map((c) => c.charCodeAt(0)),
};
const subject: MmluSubject = {
  subject: "s",
  header: "H",
  questions: [
    { shots: ["aaa", "bbb", "ccc"], text: "xyz", answer: "A" },
    { shots: ["aaa", "bbb", "ccc"], text: "xyz xyz xyz", answer: "B" },
  ],
};
const options: MmluOptions = { shots: 3, maxTokens: 14, overlong: "fewer-shots" };
const texts = (over: Partial<MmluOptions>): [string, number, boolean][] =>
  encodeMmlu(characters, subject, { ...options, ...over }).prompts.map(({ tokens, shots, shortened }) => [
    String.fromCharCode(...tokens.slice(1)),
    shots,
    shortened,
  ]);

describe("encodeMmlu", () => {
  test("all shots where they fit", () => {
    expect(texts({ maxTokens: 100 })).toEqual([
      ["Haaabbbcccxyz", 3, false],
      ["Haaabbbcccxyz xyz xyz", 3, false],
    ]);
    expect(texts({ maxTokens: 100, shots: 1 })[0]).toEqual(["Haaaxyz", 1, false]);
  });

  test("fewer shots: the last ones go; a question too long by itself loses its beginning, not its BOS", () => {
    expect(texts({})).toEqual([
      ["Haaabbbcccxyz", 3, false],
      ["Hxyz xyz xyz", 0, true],
    ]);
    expect(texts({ maxTokens: 11 })[0]).toEqual(["Haaabbbxyz", 2, true]);
    const short = encodeMmlu(characters, subject, { ...options, maxTokens: 6 });
    expect(short.shortened).toBe(2);
    expect(short.prompts[1]!.tokens).toEqual([1, ...characters.encodeWithoutBos("z xyz")]);
  });

  test("cut: the end goes, the question with it", () => {
    expect(texts({ overlong: "cut", maxTokens: 8 })[1]).toEqual(["Haaabbb", 3, true]);
  });
});

describe("letterIds", () => {
  test("alone, and with a space where that is one other token", () => {
    const byWord = (text: string): number[] =>
      (text.match(/ ?[^ ]+/g) ?? []).map(
        (word) => (word.startsWith(" ") ? 1000 : 0) + word.charCodeAt(word.length - 1),
      );
    expect(letterIds({ encodeWithoutBos: byWord }, "dir")).toEqual({
      alone: [65, 66, 67, 68],
      spaced: [1065, 1066, 1067, 1068],
    });
    // A space that is a token of its own; a tokenizer that puts the space in front of every text.
    expect(letterIds(characters, "dir").spaced).toBeNull();
    const always = (text: string): number[] => byWord(` ${text}`);
    expect(letterIds({ encodeWithoutBos: always }, "dir")).toEqual({
      alone: [1065, 1066, 1067, 1068],
      spaced: null,
    });
  });

  test("letters that begin alike cannot be compared", () => {
    expect(() => letterIds({ encodeWithoutBos: () => [9] }, "dir")).toThrow(/tokens 9, 9, 9, 9/);
  });
});

describe("scoreMmlu", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await openRig("gqa");
  });
  afterAll(() => closeRig(rig));

  test("the likeliest letter at the prompt's last position, whatever shots the others have", async () => {
    const prompts = [
      { tokens: [5, 6, 7, 8, 9], shots: 2, shortened: false },
      { tokens: [5, 9], shots: 0, shortened: true },
      { tokens: [5, 6, 7, 30], shots: 2, shortened: false },
    ];
    const ids = { alone: [10, 20, 30, 40], spaced: [20, 11, 12, 13] };
    const questions = [{ answer: "A" }, { answer: "B" }, { answer: "D" }] as const;
    const done: number[] = [];
    const predictions = await scoreMmlu(rig.model, { questions, prompts }, ids, (n) => done.push(n));
    expect(done.at(-1)).toBe(3);
    prompts.forEach(({ tokens }, i) => {
      const all = logitsPass(rig.model, packed([[...tokens, 0]]), rig);
      const V = rig.model.config.vocabSize;
      const last = all.slice((tokens.length - 1) * V, tokens.length * V);
      const { answer } = questions[i]!;
      for (const [wanted, label, nats] of [
        [ids.alone, predictions[i]!.likeliestLabel, predictions[i]!.labelNats],
        [ids.spaced, predictions[i]!.spacedLabel, predictions[i]!.spacedNats],
      ] as const) {
        const values = wanted.map((id) => last[id]!);
        expect(label).toBe("ABCD"[values.indexOf(Math.max(...values))]!);
        const share =
          Math.exp(values["ABCD".indexOf(answer)]!) / values.reduce((sum, v) => sum + Math.exp(v), 0);
        expect(nats).toBeCloseTo(-Math.log(share), 4);
      }
      expect(predictions[i]).toMatchObject({ record: i, label: answer });
    });
    const { spacedLabel } = (
      await scoreMmlu(rig.model, { questions, prompts }, { ...ids, spaced: null })
    )[0]!;
    expect(spacedLabel).toBeUndefined();
  });
});
