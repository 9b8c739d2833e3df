/**
 * A byte-level BPE tokenizer trained on the tiny world's texts, written as a `tokenizer.json`. The phrases that every
 * prompt of the paper repeats stay in one piece each, so that a record costs about forty tokens instead of a hundred and forty.
 */
import type { JsonObject } from "../../src/formats/json.ts";

export interface Bpe {
  readonly vocabulary: readonly string[];
  readonly merges: readonly (readonly [string, string])[];
}

/** Ids 0 and 1. */
export const specialTokens = { bos: "<s>", eos: "</s>" } as const;

/** Pieces inside of which bytes are merged: prompt phrases, a line break with its indentation, option marks, words. */
export const piecePattern = [
  "Below is an instruction[^\\n]*?request\\.",
  "Please [a-z ]+",
  "### [A-Z][a-z]+:",
  "Answer format: [a-z0-9/]+",
  " ?the correct answer is",
  " ?\\([a-z]+\\)",
  " ?(?:Answer|Solution|Ending|Option)[0-9]:",
  "\\n(?: {16})?",
  " ?[A-Za-z]+[0-9]?",
  " ?[^\\sA-Za-z]",
  "\\s",
].join("|");

/** GPT-2's printable stand-in for every byte. */
const byteCharacters: readonly string[] = (() => {
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

function spelled(piece: string): string[] {
  return Array.from(new TextEncoder().encode(piece), (byte) => byteCharacters[byte]!);
}

interface Piece {
  readonly count: number;
  symbols: string[];
}

/**
 * Merges the most frequent pair of symbols until the vocabulary is full or no pair occurs twice. Ties go to the pair
 * that is first in code-unit order, so that the same texts give the same tokenizer.
 * @param size entries, the two special tokens and the 256 bytes included
 */
export function trainBpe(texts: Iterable<string>, size: number): Bpe {
  const pieces = countPieces(texts);
  const vocabulary: string[] = [specialTokens.bos, specialTokens.eos, ...byteCharacters];
  const known = new Set(vocabulary);
  const merges: [string, string][] = [];
  while (vocabulary.length < size) {
    const pair = mostFrequentPair(pieces);
    if (!pair) break;
    merges.push(pair);
    const joined = pair[0] + pair[1];
    // Two ways to the same symbol are one entry.
    if (!known.has(joined)) {
      known.add(joined);
      vocabulary.push(joined);
    }
    for (const piece of pieces) piece.symbols = mergePair(piece.symbols, pair);
  }
  return { vocabulary, merges };
}

function countPieces(texts: Iterable<string>): Piece[] {
  const pattern = new RegExp(piecePattern, "gu");
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const [piece] of text.matchAll(pattern)) counts.set(piece, (counts.get(piece) ?? 0) + 1);
  }
  return [...counts].map(([piece, count]) => ({ count, symbols: spelled(piece) }));
}

function mostFrequentPair(pieces: readonly Piece[]): [string, string] | null {
  const counts = new Map<string, number>();
  for (const { count, symbols } of pieces) {
    for (let i = 0; i + 1 < symbols.length; i++) {
      const key = `${symbols[i]} ${symbols[i + 1]}`;
      counts.set(key, (counts.get(key) ?? 0) + count);
    }
  }
  let best = "";
  let most = 1;
  for (const [key, count] of counts) {
    if (count > most || (count === most && best !== "" && key < best)) {
      best = key;
      most = count;
    }
  }
  if (best === "") return null;
  const [left, right] = best.split(" ");
  return [left!, right!];
}

function mergePair(symbols: readonly string[], [left, right]: readonly [string, string]): string[] {
  const merged: string[] = [];
  for (let i = 0; i < symbols.length; i++) {
    if (symbols[i] === left && symbols[i + 1] === right) {
      merged.push(left + right);
      i++;
    } else merged.push(symbols[i]!);
  }
  return merged;
}

/** The layout that Hugging Face's tokenizers read; encoding puts BOS in front. */
export function tokenizerJson({ vocabulary, merges }: Bpe): JsonObject {
  const special = [specialTokens.bos, specialTokens.eos];
  const { bos } = specialTokens;
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: piecePattern }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
      ],
    },
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [
        { SpecialToken: { id: bos, type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { Sequence: { id: "B", type_id: 0 } },
      ],
      special_tokens: { [bos]: { id: bos, ids: [0], tokens: [bos] } },
    },
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
      merges: merges.map(([left, right]) => [left, right]),
    },
  };
}

export function tokenizerConfigJson(maxPositions: number): JsonObject {
  return {
    add_bos_token: true,
    add_eos_token: false,
    bos_token: specialTokens.bos,
    eos_token: specialTokens.eos,
    clean_up_tokenization_spaces: false,
    model_max_length: maxPositions,
    tokenizer_class: "PreTrainedTokenizerFast",
  };
}
