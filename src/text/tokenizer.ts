/**
 * A Hugging Face tokenizer folder: text to ids and back, with the ids of the Rust implementation. Only the main thread
 * loads one (a Worker cannot import packages, settled 29).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  ByteFallbackDecoder,
  ByteLevelPreTokenizer,
  type Decoder,
  Tokenizer as HfTokenizer,
  type PreTokenizer,
  SequenceDecoder,
  SequencePreTokenizer,
} from "@huggingface/tokenizers";
import { InputError, messageOf, Problems } from "../errors.ts";
import { isRecord, parseObject, readOptionalObject, readOptionalText, type TextFile } from "./json.ts";

export interface DecodeOptions {
  /** Leave out tokens that tokenizer.json calls special (BOS, EOS, chat marks). Default: false. */
  readonly skipSpecialTokens?: boolean;
}

export interface Tokenizer {
  /**
   * Ids of the text as Hugging Face gives them with `add_special_tokens=True`: `bosId` in front where there is one;
   * nothing is ever put behind. Special tokens written in the text become their ids, except where `protect` was applied.
   */
  encode(text: string): number[];
  /** As `encode` without the BOS: for text that brings its own, such as a rendered chat template. */
  encodeWithoutBos(text: string): number[];
  /** Ids of foreign text without the BOS: special tokens written in it stay ordinary text. */
  encodePlain(text: string): number[];
  /**
   * The text with an invisible mark inside each special token written in it. Put it into a template, and the encoders
   * above drop the marks but do not see those tokens; text without special tokens comes back as it is (settled 29).
   */
  protect(text: string): string;
  /** Takes the marks of `protect` out again. */
  unprotect(text: string): string;
  /** Ids outside the vocabulary give no text. Spaces are never tidied up. */
  decode(ids: readonly number[], options?: DecodeOptions): string;
  /** The vocabulary's own spelling of a token ("Ġthe", "<0xE6>"); null outside the vocabulary. */
  token(id: number): string | null;
  /** Id of a token by that spelling. */
  idOf(token: string): number | null;
  /** Whether tokenizer.json calls the token special. */
  isSpecial(id: number): boolean;
  /** What `encode` puts in front; null for tokenizers that put nothing (SmolLM2). */
  readonly bosId: number | null;
  /** What the folder names as end of a text, for training examples; null when it names none. */
  readonly eosId: number | null;
  /** Every id that ends a generated text: `eosId` and those of generation_config.json and config.json. */
  readonly eosIds: readonly number[];
  /** Spellings that chat templates ask for; BOS also where `encode` puts none. */
  readonly bosToken: string | null;
  readonly eosToken: string | null;
  readonly padToken: string | null;
  readonly unkToken: string | null;
  /** Highest id + 1; the model's embedding may have more rows. */
  readonly vocabSize: number;
  /** SHA-256 of tokenizer.json, the record of which tokenizer it was. */
  readonly sha256: string;
}

/** Unicode non-characters: no text carries them, and the pre-tokenizer takes them out again. */
const MARK = "\u{FDD0}\u{FDD1}\u{FDD0}";
const TOKENIZER = "tokenizer.json";

/** @throws InputError naming the file, the field, its value and what was expected */
export function loadTokenizer(dir: string): Tokenizer {
  const file = readOptionalText(join(dir, TOKENIZER));
  if (!file) throw new InputError(whatIsMissing(dir));
  const json = checked(file);
  const named = { ...readOptionalObject(join(dir, "special_tokens_map.json")), ...readConfig(dir) };
  const backend = openBackend(file.path, json);
  const vocabulary = vocabularyOf(backend);
  const idOf = (token: string | null): number | null =>
    token === null ? null : (backend.token_to_id(token) ?? null);
  const special = new Set(
    [...backend.get_added_tokens_decoder().values()].filter((t) => t.special).map((t) => t.id),
  );
  const marks = marker([...special].map((id) => vocabulary[id]!));
  const bosToken = tokenNamed(named.bos_token);
  const eosToken = tokenNamed(named.eos_token);
  const bosId = bosInFront(backend, named.add_bos_token, idOf(bosToken));
  const eosId = idOf(eosToken);
  const encodeWithoutBos = (text: string): number[] =>
    text === "" ? [] : backend.encode(text.toWellFormed(), { add_special_tokens: false }).ids;
  return {
    encodeWithoutBos,
    encode: (text) => (bosId === null ? encodeWithoutBos(text) : [bosId, ...encodeWithoutBos(text)]),
    encodePlain: (text) => encodeWithoutBos(marks.protect(text)),
    ...marks,
    decode(ids, options = {}) {
      const skip = options.skipSpecialTokens ?? false;
      const kept = ids.filter((id) => vocabulary[id] !== undefined && !(skip && special.has(id)));
      return kept.length === 0 ? "" : backend.decode(kept, { clean_up_tokenization_spaces: false });
    },
    token: (id) => vocabulary[id] ?? null,
    idOf,
    isSpecial: (id) => special.has(id),
    bosId,
    eosId,
    eosIds: [...new Set([...(eosId === null ? [] : [eosId]), ...configuredEosIds(dir)])],
    bosToken,
    eosToken,
    padToken: tokenNamed(named.pad_token),
    unkToken: tokenNamed(named.unk_token),
    vocabSize: vocabulary.length,
    sha256: new Bun.CryptoHasher("sha256").update(file.text).digest("hex"),
  };
}

function whatIsMissing(dir: string): string {
  const next = "Expected a Hugging Face model folder; download the model again, tokenizer included.";
  if (!existsSync(dir)) return `${dir}: there is no such folder. ${next}`;
  if (existsSync(join(dir, "tokenizer.model"))) {
    return (
      `${dir}: there is no ${TOKENIZER}, only tokenizer.model; expected ${TOKENIZER}, as the SentencePiece file alone is ` +
      `not supported. Take the folder from a repository that has both, or write it once with transformers: ` +
      `AutoTokenizer.from_pretrained("${dir}").save_pretrained("${dir}").`
    );
  }
  return `${dir}: there is no ${TOKENIZER}. ${next}`;
}

/** The parts the backend needs; it would fail on others with an error that names no file. */
function checked(file: TextFile): Record<string, unknown> {
  const json = parseObject(file);
  const problems = new Problems();
  const model = isRecord(json.model) ? json.model : {};
  // Old files leave the type out; those are BPE.
  if ((model.type ?? "BPE") !== "BPE")
    problems.add(`model.type is ${JSON.stringify(model.type)}, expected "BPE"`);
  if (!isRecord(model.vocab)) problems.add("model.vocab is missing, expected an object of token to id");
  if (!Array.isArray(model.merges)) problems.add("model.merges is missing, expected an array of pairs");
  if (!Array.isArray(json.added_tokens)) problems.add("added_tokens is missing, expected an array");
  problems.throwIfAny(file.path, "Download the tokenizer again; LLaMA models have a BPE tokenizer.");
  return json;
}

function readConfig(dir: string): Record<string, unknown> {
  const config = readOptionalObject(join(dir, "tokenizer_config.json"));
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== null));
}

/** Ids come from tokenizer.json alone, as in the Rust implementation; tokenizer_config.json would change spacing. */
function openBackend(path: string, json: Record<string, unknown>): HfTokenizer {
  const own = { type: "Replace", pattern: { String: MARK }, content: "" };
  const given = unicodeDigits(json.pre_tokenizer ?? null);
  const pre_tokenizer = { type: "Sequence", pretokenizers: given === null ? [own] : [own, given] };
  try {
    const absent = { normalizer: null, post_processor: null, decoder: null };
    const backend = new HfTokenizer(
      { ...absent, ...json, pre_tokenizer },
      { clean_up_tokenization_spaces: false },
    );
    correctWhiteSpace(backend.pre_tokenizer);
    keepByteOrderMarks(backend.decoder);
    return backend;
  } catch (error) {
    throw new InputError(`${path}: not a tokenizer we can read (${messageOf(error)}); download it again.`);
  }
}

/** The package's Digits knows 0 to 9 only; the Rust implementation splits at every numeric character (¾, ۲). */
function unicodeDigits(part: unknown): unknown {
  if (!isRecord(part)) return part;
  if (Array.isArray(part.pretokenizers))
    return { ...part, pretokenizers: part.pretokenizers.map(unicodeDigits) };
  if (part.type !== "Digits") return part;
  const Regex = part.individual_digits === true ? "\\p{N}" : "\\p{N}+";
  return { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false };
}

/** ByteLevel's words by Unicode's white space; the package has JavaScript's \s, which takes U+FEFF in and leaves U+0085 out. */
const WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

function correctWhiteSpace(part: PreTokenizer | null): void {
  if (part instanceof SequencePreTokenizer) part.tokenizers.forEach(correctWhiteSpace);
  else if (part instanceof ByteLevelPreTokenizer) part.pattern = WORDS;
}

/** U+FEFF is a character like another; the package's byte fallback drops it as a mark of the text's beginning. */
function keepByteOrderMarks(part: Decoder | null): void {
  if (part instanceof SequenceDecoder) part.decoders.forEach(keepByteOrderMarks);
  else if (part instanceof ByteFallbackDecoder)
    part.text_decoder = new TextDecoder("utf-8", { ignoreBOM: true });
}

function vocabularyOf(backend: HfTokenizer): readonly (string | undefined)[] {
  return backend.model?.vocab ?? [];
}

/** "<s>" or {"content": "<s>", ...}. */
function tokenNamed(value: unknown): string | null {
  const text = isRecord(value) ? value.content : value;
  return typeof text === "string" && text !== "" ? text : null;
}

/** An explicit add_bos_token decides, as in transformers; else what tokenizer.json's post-processor does. */
function bosInFront(backend: HfTokenizer, flag: unknown, bosId: number | null): number | null {
  if (typeof flag === "boolean") return flag ? bosId : null;
  const [first] = backend.encode("").ids;
  return first !== undefined && (bosId === null || first === bosId) ? first : null;
}

function configuredEosIds(dir: string): number[] {
  return ["generation_config.json", "config.json"].flatMap((name) => {
    const value = readOptionalObject(join(dir, name)).eos_token_id;
    return (Array.isArray(value) ? value : [value]).filter((id) => Number.isInteger(id) && id >= 0);
  });
}

/** A mark behind the first character of every special token in a text keeps it from being seen as one. */
function marker(tokens: readonly string[]): Pick<Tokenizer, "protect" | "unprotect"> {
  const unprotect = (text: string): string => text.replaceAll(MARK, "");
  if (tokens.length === 0) return { protect: (text) => text, unprotect };
  const quoted = tokens.map((token) => RegExp.escape(token)).join("|");
  const starts = new RegExp(`(?=${quoted})[\\s\\S]`, "gu");
  return { protect: (text) => text.replaceAll(starts, `$&${MARK}`), unprotect };
}
