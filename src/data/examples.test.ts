import { describe, expect, test } from "bun:test";
import { type ExampleOptions, encodeRecords, truncationWarning } from "./examples.ts";
import { promptNamed } from "./prompts/registry.ts";
import type { InstructionRecord } from "./records.ts";

const BOS = 1;
const EOS = 2;

/**
 * A toy of GPT-2's splitting rule: a run of blanks leaves its last space to the word behind it. Pieces get ids in the
 * order they are first seen.
 */
function toyTokenizer(): { encode: (text: string) => number[]; pieces: (ids: Iterable<number>) => string[] } {
  const known: string[] = ["<unk>", "<s>", "</s>"];
  const id = (piece: string): number => {
    if (!known.includes(piece)) known.push(piece);
    return known.indexOf(piece);
  };
  return {
    encode: (text) => (text.match(/ ?[^\s]+|\s+(?!\S)|\s+/g) ?? []).map(id),
    pieces: (ids) => [...ids].map((i) => known[i]!),
  };
}

const record: InstructionRecord = {
  instruction: "Is it true?",
  input: "",
  output: "the correct answer is true",
  answer: "true",
};

function options(over: Partial<ExampleOptions> = {}) {
  const toy = toyTokenizer();
  const all: ExampleOptions = {
    encode: toy.encode,
    prompt: promptNamed("llm-adapters"),
    bosId: BOS,
    eosId: EOS,
    cutoff: 256,
    lossOn: "all",
    ...over,
  };
  return { toy, all };
}

describe("encodeRecords", () => {
  test("BOS, text, EOS; all tokens but the first are labels", () => {
    const { toy, all } = options();
    const { examples, truncated } = encodeRecords([record], all);
    const { id, tokens, labelFrom } = examples[0]!;
    const text = all.prompt.train(record) + record.output;
    expect(toy.pieces(tokens)).toEqual(["<s>", ...toy.pieces(toy.encode(text)), "</s>"]);
    expect([id, labelFrom, truncated]).toEqual([0, 1, 0]);
  });

  test("BOS is not doubled, and not added for tokenizers without one", () => {
    const { toy } = options();
    const withBos = options({ encode: (text) => [BOS, ...toy.encode(text)] });
    expect(
      [...encodeRecords([record], withBos.all).examples[0]!.tokens].filter((t) => t === BOS),
    ).toHaveLength(1);
    const none = options({ bosId: null });
    expect(encodeRecords([record], none.all).examples[0]!.tokens).not.toContain(BOS);
  });

  test.each(["llm-adapters", "alpaca"])("%s: the response begins with the reply's first word", (name) => {
    const { toy, all } = options({ prompt: promptNamed(name), lossOn: "response" });
    const { tokens, labelFrom } = encodeRecords([record], all).examples[0]!;
    expect(toy.pieces(tokens.slice(labelFrom))).toEqual([
      " the",
      " correct",
      " answer",
      " is",
      " true",
      "</s>",
    ]);
  });

  test("the paper's prompt: as many tokens as the prompt alone has, though its last one differs (settled 25)", () => {
    const { toy, all } = options({ bosId: null, lossOn: "response" });
    const { tokens, labelFrom } = encodeRecords([record], all).examples[0]!;
    const alone = toy.encode(all.prompt.train(record));
    expect(labelFrom).toBe(alone.length);
    expect(toy.pieces(alone).at(-1)).toBe(`\n${" ".repeat(16)}`);
    expect(toy.pieces(tokens)[labelFrom - 1]).toBe(`\n${" ".repeat(15)}`);
  });

  test("a cut record keeps its first tokens, gets no EOS, and is counted", () => {
    const { all } = options();
    const whole = encodeRecords([record], all).examples[0]!.tokens;
    // one token short of the EOS: the text just fits, nothing is lost
    const full = encodeRecords([record], { ...all, cutoff: whole.length - 1 });
    expect(full.examples[0]!.tokens).toEqual(whole.slice(0, -1));
    expect(full.truncated).toBe(0);
    const cut = encodeRecords([record, record], { ...all, cutoff: 5 });
    expect(cut.examples[0]!.tokens).toEqual(whole.slice(0, 5));
    expect(cut.truncated).toBe(2);
    expect(truncationWarning(cut, { cutoff: 5 })).toContain("2 of 2 records (100.0 %)");
    expect(truncationWarning(full, { cutoff: 256 })).toBeNull();
  });

  test("a record cut before its reply has no response labels", () => {
    const { all } = options({ lossOn: "response" });
    const { tokens, labelFrom } = encodeRecords([record], { ...all, cutoff: 5 }).examples[0]!;
    expect(labelFrom).toBe(tokens.length);
  });

  test("EOS is not doubled", () => {
    const { all } = options({ encode: () => [5, 6, EOS] });
    expect([...encodeRecords([record], all).examples[0]!.tokens]).toEqual([BOS, 5, 6, EOS]);
  });

  test("examples are numbered as in the file", () => {
    const { all } = options();
    const records = [record, { ...record, output: "x" }, record];
    const { examples } = encodeRecords(records, all, [1, 2]);
    expect(examples.map((e) => e.id)).toEqual([1, 2]);
  });
});

describe("prompt and reply apart", () => {
  /** One token a character. */
  const encode = (text: string): number[] => [1, ...[...text].map((c) => c.charCodeAt(0))];
  const prompt = { name: "p", summary: "", train: () => "ab ", test: () => "ab " };
  const base = { encode, prompt, bosId: 1, eosId: 2, cutoff: 9, lossOn: "response" } as const;
  const one = (output: string, lengths: { source: number; target: number }) => {
    const record = { instruction: "", input: "", output, answer: "" };
    const { examples, truncated } = encodeRecords([record], { ...base, lengths });
    const [{ tokens, labelFrom }] = examples as [(typeof examples)[number]];
    const text = [...tokens].map((id) => (id < 3 ? `<${id}>` : String.fromCharCode(id))).join("");
    return [text, labelFrom, truncated] as const;
  };

  test("labels begin with the reply; its BOS goes, its EOS comes", () => {
    expect(one("cd", { source: 4, target: 5 })).toEqual(["<1>ab cd<2>", 4, 0]);
    expect(one("cd", { source: 4, target: 3 })).toEqual(["<1>ab cd<2>", 4, 0]);
  });

  test("each is cut on the right at its own limit, the EOS with the reply", () => {
    expect(one("cd", { source: 4, target: 2 })).toEqual(["<1>ab cd", 4, 1]);
    expect(one("cd", { source: 2, target: 3 })).toEqual(["<1>acd<2>", 2, 1]);
    const long = { examples: [], truncated: 1 };
    const warning = truncationWarning(
      { ...long, examples: new Array(4) },
      { cutoff: 9, lengths: { source: 4, target: 5 } },
    );
    expect(warning).toContain(
      "1 of 4 records (25.0 %) have a prompt of more than 4 tokens or a reply of more than 5",
    );
  });

  test("no border is crossed: a space that would join the reply's first word stays in the prompt", () => {
    const joining = (text: string): number[] =>
      (text.match(/ ?\w+|\s/g) ?? []).map((piece) => 100 + piece.length);
    const record = { instruction: "", input: "", output: "word", answer: "" };
    const options = { ...base, encode: joining, bosId: null, lengths: { source: 5, target: 5 } };
    expect([...encodeRecords([record], options).examples[0]!.tokens]).toEqual([102, 101, 104, 2]);
  });
});
