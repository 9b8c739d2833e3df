/** The tokenizer in a GGUF file's metadata as tokenizer.json and tokenizer_config.json. */
import { InputError, Problems } from "../errors.ts";
import type { GgufFile } from "./gguf.ts";
import { type MetadataReader, metadataReader } from "./gguf-config.ts";
import type { LlamaConfig } from "./hf-config.ts";
import type { Json, JsonObject } from "./json.ts";

export interface HfTokenizerFiles {
  readonly tokenizer: JsonObject;
  readonly config: JsonObject;
}

/** ggml's token types: control tokens and "unknown" are special, user-defined ones are matched whole but printed. */
const SPECIAL = [2, 3];
const USER_DEFINED = 4;

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
  readonly bos: string | null;
  readonly unk: string | null;
  /** Whether encoding puts BOS in front. */
  readonly addBos: boolean;
}

/** What differs between byte-level tokenizers, by `tokenizer.ggml.pre`. */
export interface ByteLevelKind {
  readonly preTokenizers: readonly JsonObject[];
  /** Whole words that are tokens skip the merges. */
  readonly ignoreMerges: boolean;
  readonly addBos: boolean;
}

const DIGITS: JsonObject = { type: "Digits", individual_digits: true };
const LLAMA3_SPLIT =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const GPT2: ByteLevelKind = { preTokenizers: [byteLevel(true)], ignoreMerges: false, addBos: false };
const SMOLLM: ByteLevelKind = { ...GPT2, preTokenizers: [DIGITS, byteLevel(true)] };
const LLAMA3: ByteLevelKind = {
  preTokenizers: [
    { type: "Split", pattern: { Regex: LLAMA3_SPLIT }, behavior: "Isolated", invert: false },
    byteLevel(false),
  ],
  ignoreMerges: true,
  addBos: true,
};
/** The first name of a kind is the one that is written. */
export const BYTE_LEVEL: ReadonlyMap<string, ByteLevelKind> = new Map([
  ["smollm", SMOLLM],
  ["gpt-2", GPT2],
  ["llama-bpe", LLAMA3],
  ["llama3", LLAMA3],
  ["llama-v3", LLAMA3],
]);

function byteLevel(regex: boolean): JsonObject {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: regex };
}

/** @throws InputError naming every metadata key that is missing, wrong or of a kind we do not know */
export function hfTokenizerOf(
  file: GgufFile,
  { vocabSize, maxPositions }: Pick<LlamaConfig, "vocabSize" | "maxPositions">,
): HfTokenizerFiles {
  const problems = new Problems();
  const read = metadataReader(file, problems);
  const model = read.text("tokenizer.ggml.model");
  const tokens = read.texts("tokenizer.ggml.tokens");
  const types = read.numbers("tokenizer.ggml.token_type");
  if (types.length !== tokens.length)
    problems.add(
      `tokenizer.ggml.token_type has ${types.length} entries, expected one for each of ${tokens.length} tokens`,
    );
  if (tokens.length > vocabSize)
    problems.add(
      `tokenizer.ggml.tokens has ${tokens.length} entries, expected at most the embedding's ${vocabSize}`,
    );
  const special = specialTokens(read, tokens, problems);
  const kind = BYTE_LEVEL.get(read.text("tokenizer.ggml.pre") || "gpt-2");
  const addBos = read.boolean("tokenizer.ggml.add_bos_token", model === "llama" || (kind?.addBos ?? false));
  const { bos_token: bos = null, unk_token: unk = null } = special;
  const vocabulary: Vocabulary = { tokens, types, bos, unk, addBos };
  const tokenizer = tokenizerJson(file.path, read, vocabulary, model, kind);
  problems.throwIfAny(file.path, "The file is damaged, or its tokenizer is of a kind we do not know.");
  const template = read.text("tokenizer.chat_template");
  return {
    tokenizer,
    config: {
      ...special,
      ...(template === "" ? {} : { chat_template: template }),
      clean_up_tokenization_spaces: false,
      model_max_length: maxPositions,
      tokenizer_class: "PreTrainedTokenizerFast",
    },
  };
}

function specialTokens(
  read: MetadataReader,
  tokens: readonly string[],
  problems: Problems,
): Record<string, string> {
  const names = { bos_token: "bos", eos_token: "eos", pad_token: "padding", unk_token: "unknown" };
  return Object.fromEntries(
    Object.entries(names).flatMap(([name, key]): [string, string][] => {
      const id = read.id(`tokenizer.ggml.${key}_token_id`);
      if (id === null) return [];
      const token = tokens[id];
      if (token !== undefined) return [[name, token]];
      problems.add(`tokenizer.ggml.${key}_token_id is ${id}, expected an id below ${tokens.length}`);
      return [];
    }),
  );
}

function tokenizerJson(
  path: string,
  read: MetadataReader,
  vocabulary: Vocabulary,
  model: string,
  kind: ByteLevelKind | undefined,
): JsonObject {
  const common = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens(vocabulary),
    post_processor: postProcessor(vocabulary),
  };
  switch (model) {
    case "gpt2": {
      if (!kind) {
        const known = [...BYTE_LEVEL.keys()].join(", ");
        throw new InputError(
          `${path}: tokenizer.ggml.pre is "${read.text("tokenizer.ggml.pre")}", expected one of ${known}. Take the model's Hugging Face repository.`,
        );
      }
      return { ...common, ...byteLevelParts(vocabulary, read.texts("tokenizer.ggml.merges"), kind) };
    }
    case "llama": {
      const scores = read.numbers("tokenizer.ggml.scores");
      const prefix = read.boolean("tokenizer.ggml.add_space_prefix", true);
      return { ...common, ...sentencePieceParts(vocabulary, scores, prefix) };
    }
    default:
      throw new InputError(
        `${path}: tokenizer.ggml.model is "${model}", expected "gpt2" (byte-level BPE) or "llama" (SentencePiece).`,
      );
  }
}

function addedTokens({ tokens, types }: Vocabulary): Json[] {
  return tokens.flatMap((content, id) => {
    const special = SPECIAL.includes(types[id]!);
    if (!special && types[id] !== USER_DEFINED) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
}

function postProcessor({ bos, addBos, tokens }: Vocabulary): JsonObject | null {
  if (!addBos || bos === null) return null;
  const special = (type_id: number): Json => ({ SpecialToken: { id: bos, type_id } });
  const sequence = (id: string, type_id: number): Json => ({ Sequence: { id, type_id } });
  return {
    type: "TemplateProcessing",
    single: [special(0), sequence("A", 0)],
    pair: [special(0), sequence("A", 0), special(1), sequence("B", 1)],
    special_tokens: { [bos]: { id: bos, ids: [tokens.indexOf(bos)], tokens: [bos] } },
  };
}

function bpe(vocabulary: Vocabulary, merges: Json[], over: JsonObject): JsonObject {
  return {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    ...over,
    vocab: Object.fromEntries(vocabulary.tokens.map((token, id) => [token, id])),
    merges,
  };
}

/** Merges are stated as "left right"; neither side can hold a space. */
function byteLevelParts(vocabulary: Vocabulary, merges: readonly string[], kind: ByteLevelKind): JsonObject {
  const pairs = merges.map((merge): Json => merge.split(" "));
  const [only, ...more] = kind.preTokenizers;
  return {
    normalizer: null,
    pre_tokenizer: more.length === 0 ? only! : { type: "Sequence", pretokenizers: [...kind.preTokenizers] },
    decoder: byteLevel(true),
    model: bpe(vocabulary, pairs, { ignore_merges: kind.ignoreMerges }),
  };
}

/** LLaMA-1 and 2: spaces are ▁, one is put in front (`prefix`), unknown characters fall back to bytes. */
function sentencePieceParts(vocabulary: Vocabulary, scores: readonly number[], prefix: boolean): JsonObject {
  const space = { String: " " };
  const mark = { String: "▁" };
  return {
    normalizer: {
      type: "Sequence",
      normalizers: [
        ...(prefix ? [{ type: "Prepend", prepend: "▁" }] : []),
        { type: "Replace", pattern: space, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: mark, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: bpe(vocabulary, mergesByScore(vocabulary.tokens, scores), {
      unk_token: vocabulary.unk,
      fuse_unk: true,
      byte_fallback: true,
    }),
  };
}

/**
 * SentencePiece keeps no merges: every split of a token into two tokens is one, and a higher score goes first; among the
 * splits of one token the lower ids do.
 */
function mergesByScore(tokens: readonly string[], scores: readonly number[]): Json[] {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const merges = tokens.flatMap((token, id) => {
    const characters = [...token];
    const splits: { left: string; right: string; score: number }[] = [];
    for (let i = 1; i < characters.length; i++) {
      const left = characters.slice(0, i).join("");
      const right = characters.slice(i).join("");
      if (ids.has(left) && ids.has(right)) splits.push({ left, right, score: scores[id] ?? 0 });
    }
    return splits.sort(
      (a, b) => ids.get(a.left)! - ids.get(b.left)! || ids.get(a.right)! - ids.get(b.right)!,
    );
  });
  return merges.sort((a, b) => b.score - a.score).map(({ left, right }) => [left, right]);
}
