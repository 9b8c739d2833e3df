import { describe, expect, test } from "bun:test";
import { BYTE_FALLBACK, BYTE_LEVEL, type Files, withFolder } from "./testing.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";

const load = (files: Files): Tokenizer => withFolder(files, loadTokenizer);
const byteLevel = load(BYTE_LEVEL);
const byteFallback = load(BYTE_FALLBACK);

// Ids and texts of the Rust implementation (tokenizers 0.22) for the same two files.
const BYTE_LEVEL_IDS: Record<string, number[]> = {
  "the  the hello 12 1212": [118, 259, 34, 260, 34, 259, 110, 261, 34, 51, 52, 34, 51, 52, 51, 52],
  "naïve 日日本\n🙂": [112, 99, 197, 177, 120, 103, 34, 265, 265, 232, 158, 174, 12, 242, 161, 155, 132],
  "a<|end|>b <|start|>the": [99, 0, 100, 34, 1, 118, 259],
  "im <|im": [264, 34, 62, 126, 264],
  " the": [260],
  "1¾ab ۲2": [51, 196, 192, 99, 100, 34, 221, 180, 52],
  "": [],
  "a  \uFEFF": [99, 34, 34, 241, 189, 193],
  "a  \u0085": [99, 262, 196, 135],
  "  a  b": [34, 34, 99, 34, 34, 100],
  "a.\n n't 's": [99, 48, 12, 34, 112, 41, 118, 34, 41, 117],
};
const BYTE_FALLBACK_IDS: Record<string, { ids: number[]; decoded: string }> = {
  "the  the 12": { ids: [1, 273, 259, 273, 259, 52, 53], decoded: "<s> the  the 12" },
  "naïve 日日本\n🙂": {
    ids: [1, 259, 269, 260, 198, 178, 121, 265, 259, 270, 270, 233, 159, 175, 13, 243, 162, 156, 133],
    decoded: "<s> naïve 日日本\n🙂",
  },
  "<s>the a</s> b": { ids: [1, 1, 273, 274, 2, 275, 261], decoded: "<s><s> the a</s>  b" },
  " the": { ids: [1, 259, 273], decoded: "<s>  the" },
  "": { ids: [1], decoded: "<s>" },
  "a\uFEFFb": { ids: [1, 274, 242, 190, 194, 261], decoded: "<s> a\uFEFFb" },
  "  a  b": { ids: [1, 275, 274, 275, 261], decoded: "<s>   a  b" },
  "a.\n n't 's": { ids: [1, 274, 266, 13, 259, 269, 267, 263, 259, 267, 268], decoded: "<s> a.\n n't 's" },
};

describe("ids are those of the Rust implementation", () => {
  test.each(Object.entries(BYTE_LEVEL_IDS))("byte-level: %j", (text, ids) => {
    expect(byteLevel.encode(text)).toEqual(ids);
    expect(byteLevel.decode(ids)).toBe(text);
  });

  test.each(Object.entries(BYTE_FALLBACK_IDS))("byte fallback: %j", (text, { ids, decoded }) => {
    expect(byteFallback.encode(text)).toEqual(ids);
    expect(byteFallback.decode(ids)).toBe(decoded);
  });

  test("spaces before punctuation survive, whatever tokenizer_config.json says", () => {
    expect(byteFallback.decode([259, 274, 259, 266], { skipSpecialTokens: true })).toBe(" a .");
  });

  test("a lone surrogate is the replacement character", () => {
    expect(byteLevel.encode("a\ud800b")).toEqual(byteLevel.encode("a\uFFFDb"));
    expect(byteFallback.encode("a\udc00")).toEqual(byteFallback.encode("a\uFFFD"));
  });
});

describe("BOS", () => {
  test("comes from the post-processor, once", () => {
    expect(byteFallback.bosId).toBe(1);
    expect(byteFallback.encode("a")).toEqual([1, 274]);
    expect(byteFallback.encodeWithoutBos("a")).toEqual([274]);
    expect(byteFallback.encodeWithoutBos("<s>a")).toEqual([1, 274]);
  });

  test("is null where nothing is put in front, though templates may name it", () => {
    expect(byteLevel.bosId).toBeNull();
    expect(byteLevel.bosToken).toBe("<|start|>");
  });

  test.each([
    [BYTE_FALLBACK, { bos_token: "<s>", add_bos_token: false }, null],
    [BYTE_LEVEL, { bos_token: "<|start|>", add_bos_token: true }, 1],
    [BYTE_LEVEL, { add_bos_token: true }, null],
  ])("an explicit add_bos_token decides (%#)", (files, config, bosId) => {
    expect(load({ ...files, "tokenizer_config.json": config }).bosId).toBe(bosId);
  });
});

describe("special tokens", () => {
  test("are left out of a decoded text on request", () => {
    const ids = byteLevel.encode("a<|end|>b");
    expect(byteLevel.decode(ids)).toBe("a<|end|>b");
    expect(byteLevel.decode(ids, { skipSpecialTokens: true })).toBe("ab");
    expect(byteLevel.decode([0], { skipSpecialTokens: true })).toBe("");
  });

  test("stay text when they are plain", () => {
    const ids = byteLevel.encodePlain("a<|end|>b");
    expect(ids).not.toContain(0);
    expect(byteLevel.decode(ids, { skipSpecialTokens: true })).toBe("a<|end|>b");
    expect(byteFallback.encodePlain("<s>a")).not.toContain(1);
  });

  test.each(["", "the  the 12", "naïve 日日本\n🙂", "<|end", "a <s b", " "])(
    "plain ids of a text without them are those of the text: %j",
    (text) => {
      expect(byteLevel.encodePlain(text)).toEqual(byteLevel.encodeWithoutBos(text));
      expect(byteFallback.encodePlain(text)).toEqual(byteFallback.encodeWithoutBos(text));
      expect(byteLevel.protect(text)).toBe(text);
    },
  );

  test("a protected part inside a whole keeps the whole's token borders", () => {
    // "Ġthe" spans the border between the unprotected blank and the protected part.
    const text = `<|start|> ${byteLevel.protect("the")}`;
    expect(byteLevel.encode(text)).toEqual([1, 260]);
    const foreign = `<|start|> ${byteLevel.protect("<|end|>")}<|end|>`;
    expect(byteLevel.encode(foreign).filter((id) => byteLevel.isSpecial(id))).toEqual([1, 0]);
    expect(byteLevel.unprotect(foreign)).toBe("<|start|> <|end|><|end|>");
  });

  test("one inside another cannot slip through", () => {
    const ids = byteLevel.encodePlain("<|en<|end|>d|>");
    expect(ids.some((id) => byteLevel.isSpecial(id))).toBe(false);
    expect(byteLevel.decode(ids)).toBe("<|en<|end|>d|>");
  });
});

describe("what the folder says", () => {
  test("ids, spellings, sizes", () => {
    expect(byteLevel.eosId).toBe(0);
    expect(byteLevel.eosIds).toEqual([0, 7]);
    expect(byteFallback.eosIds).toEqual([2]);
    expect(byteFallback.padToken).toBeNull();
    expect(byteLevel.vocabSize).toBe(267);
    expect(byteLevel.token(260)).toBe("Ġthe");
    expect(byteLevel.idOf("Ġthe")).toBe(260);
    expect(byteLevel.token(267)).toBeNull();
    expect(byteLevel.sha256).toMatch(/^[0-9a-f]{64}$/);
  });

  test("special_tokens_map.json is read where tokenizer_config.json says nothing", () => {
    const files = {
      ...BYTE_LEVEL,
      "tokenizer_config.json": {},
      "special_tokens_map.json": { eos_token: "<|end|>" },
    };
    expect(load(files).eosToken).toBe("<|end|>");
  });

  test("ids outside the vocabulary give no text", () => {
    expect(byteLevel.decode([99, 100_000, 100])).toBe("ab");
    expect(byteLevel.decode([])).toBe("");
  });
});

describe("errors name the file, the field and what to do", () => {
  const json = BYTE_LEVEL["tokenizer.json"] as Record<string, unknown>;
  const model = json.model as Record<string, unknown>;

  test.each([
    ["no tokenizer at all", {}, /no tokenizer\.json\..*download the model again/],
    [
      "tokenizer.model alone",
      { "tokenizer.model": "x" },
      /only tokenizer\.model;.*SentencePiece.*save_pretrained/,
    ],
    ["cut file", { "tokenizer.json": '{"model": {' }, /tokenizer\.json: not valid JSON/],
    ["no object", { "tokenizer.json": "[1]" }, /tokenizer\.json: the top level is no object/],
    [
      "another model",
      { "tokenizer.json": { ...json, model: { ...model, type: "Unigram" } } },
      /model\.type is "Unigram"/,
    ],
    ["no merges", { "tokenizer.json": { ...json, model: { vocab: {} } } }, /model\.merges is missing/],
    [
      "unknown part",
      { "tokenizer.json": { ...json, decoder: { type: "Odd" } } },
      /Unknown Decoder type: Odd/,
    ],
    [
      "broken config",
      { ...BYTE_LEVEL, "tokenizer_config.json": "{" },
      /tokenizer_config\.json: not valid JSON/,
    ],
  ])("%s", (_, files, message) => {
    expect(() => load(files)).toThrow(message);
    try {
      load(files);
    } catch (error) {
      expect((error as Error).name).toBe("InputError");
    }
  });

  test("no folder", () => {
    expect(() => loadTokenizer("/nowhere/at/all")).toThrow(/there is no such folder/);
  });
});
