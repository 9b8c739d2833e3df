import { describe, expect, test } from "bun:test";
import { encodeCloze } from "./run.ts";

/** Words with the space in front of them, as GPT-2 splits; a lone run of blanks is a piece of its own. */
const pieces: string[] = [];
const tokenizer = {
  encode: (text: string): number[] =>
    (text.match(/ ?[^\s]+|\s+(?!\S)|\s+/g) ?? []).map((piece) => {
      if (!pieces.includes(piece)) pieces.push(piece);
      return pieces.indexOf(piece);
    }),
};
const words = (ids: readonly number[]): string[] => ids.map((id) => pieces[id]!);

describe("encodeCloze", () => {
  test("options behind a shared context", () => {
    const cloze = { contexts: ["Question: why?\nAnswer:"], continuations: [" so", " not so"] };
    const [item, more] = encodeCloze(tokenizer, cloze);
    expect(more).toBeUndefined();
    expect(words(item!.context)).toEqual(["Question:", " why?", "\n", "Answer:"]);
    expect(item!.continuations.map(words)).toEqual([[" so"], [" not", " so"]]);
  });

  test("trailing blanks of the context belong to the continuation", () => {
    const [item] = encodeCloze(tokenizer, { contexts: ["Response:\n   "], continuations: ["the answer"] });
    expect(words(item!.context)).toEqual(["Response:"]);
    expect(words(item!.continuations[0]!)).toEqual(["\n  ", " the", " answer"]);
  });

  test("a context for every option", () => {
    const cloze = { contexts: ["because Ann", "because Eve"], continuations: [" won.", " won."] };
    const items = encodeCloze(tokenizer, cloze);
    expect(items.map((item) => words(item.context))).toEqual([
      ["because", " Ann"],
      ["because", " Eve"],
    ]);
    expect(items.map((item) => item.continuations.map(words))).toEqual([[[" won."]], [[" won."]]]);
    expect(encodeCloze(tokenizer, { contexts: ["x"], continuations: [] })).toEqual([]);
  });
});
