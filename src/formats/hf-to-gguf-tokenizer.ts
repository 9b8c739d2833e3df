/** A folder's tokenizer.json and tokenizer_config.json as the metadata of a GGUF file: gguf-tokenizer.ts the other way. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "../errors.ts";
import { readJsonObject } from "./files.ts";
import { BYTE_LEVEL } from "./gguf-tokenizer.ts";
import type { GgufMetadata } from "./gguf-write.ts";
import type { LlamaConfig } from "./hf-config.ts";
import { isObject, type Json, type JsonObject, property } from "./json.ts";

/** ggml's token types. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;
const BYTE = 6;

/** @throws InputError for a tokenizer that llama.cpp has no name for */
export function ggufTokenizerOf(
  dir: string,
  config: LlamaConfig,
  onNote: (text: string) => void = () => {},
): Record<string, GgufMetadata> {
  const path = join(dir, "tokenizer.json");
  const json = readJsonObject(path);
  const settings = optionalObject(join(dir, "tokenizer_config.json"));
  const model = objectAt(json, "model");
  if (property(model, "type") !== "BPE")
    throw new InputError(
      `${path}: model.type is ${JSON.stringify(property(model, "type"))}, expected "BPE".`,
    );
  const sentencePiece = property(model, "byte_fallback") === true;
  const unk = textAt(model, "unk_token");
  const { tokens, types } = vocabularyOf(path, json, config.vocabSize, sentencePiece ? unk : "");
  const merges = mergesOf(model);
  const kind = sentencePiece
    ? sentencePieceMetadata(json, tokens, merges)
    : byteLevelMetadata(path, json, model, merges);
  const template = chatTemplateOf(dir, settings);
  return {
    ...kind,
    "tokenizer.ggml.tokens": { texts: tokens },
    "tokenizer.ggml.token_type": { i32s: types },
    ...idsOf(dir, { unk_token: unk, ...settings }, tokens, config, onNote),
    "tokenizer.ggml.add_bos_token": { bool: putsBos(json, settings) },
    ...(template === "" ? {} : { "tokenizer.chat_template": { text: template } }),
  };
}

function objectAt(json: JsonObject, key: string): JsonObject {
  const value = property(json, key);
  return isObject(value) ? value : {};
}

function textAt(json: JsonObject, key: string): string {
  const value = property(json, key);
  // special tokens may be objects with their text in `content`
  const text = isObject(value) ? property(value, "content") : value;
  return typeof text === "string" ? text : "";
}

function listAt(json: JsonObject, key: string): readonly Json[] {
  const value = property(json, key);
  return Array.isArray(value) ? value : [];
}

function optionalObject(path: string): JsonObject {
  return existsSync(path) ? readJsonObject(path) : {};
}

function vocabularyOf(
  path: string,
  json: JsonObject,
  size: number,
  unk: string,
): { tokens: string[]; types: number[] } {
  const tokens = new Array<string | undefined>(size);
  const types = new Array<number>(size).fill(UNUSED);
  const put = (token: string, id: Json | undefined, type: number): void => {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= size) {
      throw new InputError(
        `${path}: token ${JSON.stringify(token)} has the id ${JSON.stringify(id)}, expected one below vocab_size ${size}; ` +
          `tokenizer and weights do not belong together.`,
      );
    }
    tokens[id] = token;
    types[id] = type;
  };
  for (const [token, id] of Object.entries(objectAt(objectAt(json, "model"), "vocab"))) {
    const byte = unk !== "" && /^<0x[0-9A-F]{2}>$/.test(token);
    put(token, id, byte ? BYTE : NORMAL);
  }
  for (const added of listAt(json, "added_tokens")) {
    if (!isObject(added)) continue;
    const content = textAt(added, "content");
    const special = property(added, "special") === true;
    put(content, property(added, "id"), content === unk ? UNKNOWN : special ? CONTROL : USER_DEFINED);
  }
  return { tokens: Array.from(tokens, (token, id) => token ?? `[PAD${id}]`), types };
}

/** Pairs, or "left right" as older files have them. */
function mergesOf(model: JsonObject): [string, string][] {
  return listAt(model, "merges").map((merge) => {
    const [left = "", right = ""] = typeof merge === "string" ? merge.split(" ") : (merge as string[]);
    return [left, right];
  });
}

function byteLevelMetadata(
  path: string,
  json: JsonObject,
  model: JsonObject,
  merges: readonly [string, string][],
): Record<string, GgufMetadata> {
  const found = preTokenizersOf(property(json, "pre_tokenizer"));
  const ignoreMerges = property(model, "ignore_merges") === true;
  for (const [pre, kind] of BYTE_LEVEL) {
    if (kind.ignoreMerges !== ignoreMerges || essence(kind.preTokenizers) !== essence(found)) continue;
    return {
      "tokenizer.ggml.model": { text: "gpt2" },
      "tokenizer.ggml.pre": { text: pre },
      "tokenizer.ggml.merges": { texts: merges.map((pair) => pair.join(" ")) },
    };
  }
  throw new InputError(
    `${path}: llama.cpp has no name for this pre-tokenizer (${essence(found).slice(0, 200)}); only the tokenizers of ` +
      `${[...BYTE_LEVEL.keys()].join(", ")} and LLaMA's SentencePiece can be exported.`,
  );
}

function preTokenizersOf(json: Json | undefined): JsonObject[] {
  if (!isObject(json)) return [];
  if (property(json, "type") !== "Sequence") return [json];
  return listAt(json, "pretokenizers").flatMap((part) => (isObject(part) ? [part] : []));
}

/** What of a pre-tokenizer decides where words are cut. */
function essence(parts: readonly JsonObject[]): string {
  return parts
    .map((part) => {
      switch (property(part, "type")) {
        case "Digits":
          return `digits ${property(part, "individual_digits") === true}`;
        case "ByteLevel":
          return `bytes ${property(part, "add_prefix_space") === true} ${property(part, "use_regex") !== false}`;
        case "Split":
          return `split ${JSON.stringify(property(part, "pattern"))} ${property(part, "behavior")}`;
        default:
          return JSON.stringify(part);
      }
    })
    .join(", ");
}

/** SentencePiece has scores in place of merges: the earlier a token is first made, the higher. */
function sentencePieceMetadata(
  json: JsonObject,
  tokens: readonly string[],
  merges: readonly [string, string][],
): Record<string, GgufMetadata> {
  const ranks = new Map<string, number>();
  for (const [left, right] of merges) if (!ranks.has(left + right)) ranks.set(left + right, ranks.size);
  const scores = tokens.map((token) => -(ranks.get(token) ?? ranks.size));
  const normalizer = JSON.stringify(property(json, "normalizer") ?? null);
  const metaspace = JSON.stringify(property(json, "pre_tokenizer") ?? null);
  const prefix = normalizer.includes('"Prepend"') || /"prepend_scheme":"(first|always)"/.test(metaspace);
  return {
    "tokenizer.ggml.model": { text: "llama" },
    "tokenizer.ggml.pre": { text: "default" },
    "tokenizer.ggml.scores": { f32s: scores },
    "tokenizer.ggml.add_space_prefix": { bool: prefix },
  };
}

function idsOf(
  dir: string,
  settings: JsonObject,
  tokens: readonly string[],
  config: LlamaConfig,
  onNote: (text: string) => void,
): Record<string, GgufMetadata> {
  const map = optionalObject(join(dir, "special_tokens_map.json"));
  const named = (key: string): number | null => {
    const text = textAt(settings, key) || textAt(map, key);
    const id = text === "" ? -1 : tokens.indexOf(text);
    return id < 0 ? null : id;
  };
  const eos = named("eos_token") ?? config.eosTokenIds[0] ?? null;
  const others = config.eosTokenIds.filter((id) => id !== eos);
  if (others.length > 1)
    onNote(
      `the model names ${others.length + 1} end tokens; GGUF has room for two, ${others.slice(1).join(", ")} are left out.`,
    );
  const ids = {
    bos: named("bos_token") ?? config.bosTokenId,
    eos,
    eot: others[0] ?? null,
    unknown: named("unk_token"),
    padding: named("pad_token") ?? config.padTokenId,
  };
  return Object.fromEntries(
    Object.entries(ids).flatMap(([key, id]): [string, GgufMetadata][] =>
      id === null ? [] : [[`tokenizer.ggml.${key}_token_id`, { u32: id }]],
    ),
  );
}

/** Whether encoding puts BOS in front: an explicit setting decides (as in tokenizer.ts), else the post-processor's template. */
function putsBos(json: JsonObject, settings: JsonObject): boolean {
  const flag = property(settings, "add_bos_token");
  if (typeof flag === "boolean") return flag;
  const processor = objectAt(json, "post_processor");
  const all = [processor, ...listAt(processor, "processors").filter(isObject)];
  const template = all.find((part) => property(part, "type") === "TemplateProcessing");
  const [first] = template ? listAt(template, "single") : [];
  return isObject(first) && property(first, "SpecialToken") !== undefined;
}

function chatTemplateOf(dir: string, settings: JsonObject): string {
  const file = join(dir, "chat_template.jinja");
  if (existsSync(file)) return readFileSync(file, "utf8");
  const value = property(settings, "chat_template");
  if (typeof value === "string") return value;
  const named = (Array.isArray(value) ? value : []).filter(isObject);
  const chosen = named.find((template) => textAt(template, "name") === "default") ?? named[0];
  return chosen ? textAt(chosen, "template") : "";
}
