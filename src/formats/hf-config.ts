/** A LLaMA's config.json and generation_config.json, in the spellings of transformers 4 and 5. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { InputError, Problems } from "../errors.ts";
import { readJsonObject, writeTextFile } from "./files.ts";
import { type FieldReader, fieldReader } from "./hf-fields.ts";
import type { JsonObject } from "./json.ts";

export const MAX_VOCAB = 1 << 24;
export const MAX_WIDTH = 1 << 20;
export const MAX_LAYERS = 4096;
export const MAX_HEADS = 4096;
export const MAX_POSITIONS = 1 << 28;

export type RopeScalingConfig =
  | null
  | { readonly type: "linear"; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositions: number;
    };

export interface LlamaConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly maxPositions: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScalingConfig;
  readonly tiedEmbeddings: boolean;
  readonly bosTokenId: number | null;
  /** Every id that ends a text: config.json's and generation_config.json's. */
  readonly eosTokenIds: readonly number[];
  readonly padTokenId: number | null;
  readonly torchDtype: "float32" | "float16" | "bfloat16" | null;
  /** What the config calls itself, else the folder it was read from. */
  readonly nameOrPath: string;
}

/** Reads and checks a model folder's configuration. @throws InputError naming every field that is wrong */
export function readLlamaConfig(dir: string): LlamaConfig {
  const path = join(dir, "config.json");
  if (!existsSync(path)) {
    throw new InputError(`${dir}: there is no config.json; expected a Hugging Face model folder of a LLaMA.`);
  }
  const problems = new Problems();
  const config = parseLlamaConfig(fieldReader(readJsonObject(path), problems), dir);
  problems.throwIfAny(path, "Only LLaMA models are supported.");
  const generationPath = join(dir, "generation_config.json");
  if (!existsSync(generationPath)) return config;
  const generation = fieldReader(readJsonObject(generationPath), problems);
  const eosTokenIds = [
    ...new Set([...config.eosTokenIds, ...tokenIds(generation, "eos_token_id", config.vocabSize)]),
  ];
  problems.throwIfAny(generationPath);
  return { ...config, eosTokenIds };
}

/** Holds a configuration from elsewhere against the rules of config.json; problems name that file's fields. */
export function checkLlamaConfig(config: LlamaConfig, problems: Problems): void {
  parseLlamaConfig(fieldReader(toHfConfig(config), problems), config.nameOrPath);
}

function parseLlamaConfig(fields: FieldReader, dir: string): LlamaConfig {
  refuseOtherModels(fields);
  const hiddenSize = fields.integer("hidden_size", { min: 1, max: MAX_WIDTH });
  const heads = fields.integer("num_attention_heads", { min: 1, max: MAX_HEADS });
  const kvHeads = fields.integer("num_key_value_heads", { min: 1, max: MAX_HEADS, otherwise: heads });
  if (heads % kvHeads !== 0) {
    fields.problem(`num_key_value_heads is ${kvHeads}, expected a divisor of num_attention_heads ${heads}`);
  }
  if (!fields.has("head_dim") && hiddenSize % heads !== 0) {
    fields.problem(`hidden_size is ${hiddenSize}, expected a multiple of num_attention_heads ${heads}`);
  }
  const headSize = fields.integer("head_dim", {
    min: 2,
    max: MAX_WIDTH,
    otherwise: Math.floor(hiddenSize / heads),
  });
  if (headSize % 2 !== 0) fields.problem(`head_dim is ${headSize}, expected an even number`);
  const vocabSize = fields.integer("vocab_size", { min: 1, max: MAX_VOCAB });
  // Early LLaMA configs say max_sequence_length, or nothing: 2048 is transformers' default.
  const oldMaximum = fields.integer("max_sequence_length", { min: 1, max: MAX_POSITIONS, otherwise: 2048 });
  const maxPositions = fields.integer("max_position_embeddings", {
    min: 1,
    max: MAX_POSITIONS,
    otherwise: oldMaximum,
  });
  return {
    vocabSize,
    hiddenSize,
    intermediateSize: fields.integer("intermediate_size", { min: 1, max: MAX_WIDTH }),
    layers: fields.integer("num_hidden_layers", { min: 1, max: MAX_LAYERS }),
    heads,
    kvHeads,
    headSize,
    maxPositions,
    rmsNormEps: fields.positive("rms_norm_eps", 1e-6),
    ...parseRope(fields, maxPositions),
    tiedEmbeddings: fields.boolean("tie_word_embeddings", false),
    bosTokenId: tokenIds(fields, "bos_token_id", vocabSize)[0] ?? null,
    eosTokenIds: tokenIds(fields, "eos_token_id", vocabSize),
    padTokenId: tokenIds(fields, "pad_token_id", vocabSize)[0] ?? null,
    torchDtype: parseDtype(fields),
    nameOrPath: fields.text("_name_or_path") || dir,
  };
}

/** What would load without an error and compute something else. */
function refuseOtherModels(fields: FieldReader): void {
  fields.expect("model_type", ["llama"]);
  const architectures = fields.json("architectures");
  // The second spelling is in the first published conversions of LLaMA-7B.
  const known = ["LlamaForCausalLM", "LLaMAForCausalLM"];
  if (Array.isArray(architectures) && !architectures.some((name) => known.some((k) => k === name))) {
    fields.problem(`architectures is ${JSON.stringify(architectures)}, expected LlamaForCausalLM`);
  }
  fields.expect("hidden_act", ["silu"]);
  fields.expect("attention_bias", [false]);
  fields.expect("mlp_bias", [false]);
  const quantization = fields.object("quantization_config");
  quantization?.expect("quant_method", ["bitsandbytes"]);
  quantization?.expect("load_in_8bit", [false]);
  quantization?.expect("bnb_4bit_quant_type", ["nf4"]);
  quantization?.expect("bnb_4bit_quant_storage", ["uint8"]);
}

function parseDtype(fields: FieldReader): LlamaConfig["torchDtype"] {
  const types = ["float32", "float16", "bfloat16"] as const;
  const named = fields.text("dtype") || fields.text("torch_dtype");
  const found = types.find((type) => type === named.replace(/^torch\./, ""));
  if (found === undefined && named !== "" && named !== "auto") {
    fields.problem(`torch_dtype is "${named}", expected one of ${types.join(", ")}`);
  }
  return found ?? null;
}

/** transformers 4: rope_theta and rope_scaling; transformers 5: everything in rope_parameters. */
function parseRope(
  fields: FieldReader,
  maxPositions: number,
): Pick<LlamaConfig, "ropeTheta" | "ropeScaling"> {
  const parameters = fields.object("rope_parameters");
  const source = parameters ?? fields.object("rope_scaling");
  const theta = fields.positive("rope_theta", 10_000);
  const ropeTheta = parameters?.positive("rope_theta", theta) ?? theta;
  if (fields.has("rope_theta") && parameters?.has("rope_theta") && theta !== ropeTheta) {
    fields.problem(`rope_theta is ${theta}, but rope_parameters.rope_theta is ${ropeTheta}`);
  }
  if (!source) return { ropeTheta, ropeScaling: null };
  source.expect("partial_rotary_factor", [1]);
  const type = source.text("rope_type") || source.text("type") || "default";
  const factor = (): number => source.positive("factor");
  switch (type) {
    case "default":
      return { ropeTheta, ropeScaling: null };
    case "linear":
      return { ropeTheta, ropeScaling: { type, factor: factor() } };
    case "llama3": {
      const lowFreqFactor = source.positive("low_freq_factor");
      const highFreqFactor = source.positive("high_freq_factor");
      if (highFreqFactor <= lowFreqFactor) {
        fields.problem(
          `rope high_freq_factor is ${highFreqFactor}, expected more than low_freq_factor ${lowFreqFactor}`,
        );
      }
      const range = { min: 1, max: MAX_POSITIONS, otherwise: maxPositions };
      const originalMaxPositions = source.integer("original_max_position_embeddings", range);
      return {
        ropeTheta,
        ropeScaling: { type, factor: factor(), lowFreqFactor, highFreqFactor, originalMaxPositions },
      };
    }
    default:
      fields.problem(`rope_type is "${type}", expected default, linear or llama3`);
      return { ropeTheta, ropeScaling: null };
  }
}

/** An id or a list of ids; null and negative ids (old configs write pad_token_id -1) mean none. */
function tokenIds(fields: FieldReader, name: string, vocabSize: number): number[] {
  const value = fields.json(name) ?? [];
  const ids: number[] = [];
  for (const id of Array.isArray(value) ? value : [value]) {
    if (typeof id !== "number" || !Number.isInteger(id) || id >= vocabSize) {
      fields.problem(`${name} is ${JSON.stringify(value)}, expected ids below vocab_size ${vocabSize}`);
      return [];
    }
    if (id >= 0) ids.push(id);
  }
  return ids;
}

/** The config as transformers 4 writes it, which transformers 5 reads too. */
export function toHfConfig(config: LlamaConfig): JsonObject {
  const eos = [...config.eosTokenIds];
  return {
    architectures: ["LlamaForCausalLM"],
    attention_bias: false,
    attention_dropout: 0,
    bos_token_id: config.bosTokenId,
    eos_token_id: eos.length === 1 ? eos[0]! : eos.length === 0 ? null : eos,
    head_dim: config.headSize,
    hidden_act: "silu",
    hidden_size: config.hiddenSize,
    initializer_range: 0.02,
    intermediate_size: config.intermediateSize,
    max_position_embeddings: config.maxPositions,
    mlp_bias: false,
    model_type: "llama",
    num_attention_heads: config.heads,
    num_hidden_layers: config.layers,
    num_key_value_heads: config.kvHeads,
    pad_token_id: config.padTokenId,
    rms_norm_eps: config.rmsNormEps,
    rope_scaling: ropeScalingJson(config.ropeScaling),
    rope_theta: config.ropeTheta,
    tie_word_embeddings: config.tiedEmbeddings,
    torch_dtype: config.torchDtype,
    use_cache: true,
    vocab_size: config.vocabSize,
  };
}

function ropeScalingJson(scaling: RopeScalingConfig): JsonObject | null {
  if (scaling === null) return null;
  // The oldest readers want exactly these two fields, and "type".
  if (scaling.type === "linear") return { type: "linear", factor: scaling.factor };
  return {
    rope_type: "llama3",
    factor: scaling.factor,
    low_freq_factor: scaling.lowFreqFactor,
    high_freq_factor: scaling.highFreqFactor,
    original_max_position_embeddings: scaling.originalMaxPositions,
  };
}

/** Writes config.json and generation_config.json into an existing folder. */
export function writeHfConfig(dir: string, config: LlamaConfig): void {
  const json = toHfConfig(config);
  writeTextFile(join(dir, "config.json"), hfConfigText(json));
  const { bos_token_id, eos_token_id, pad_token_id } = json;
  const generation = Object.fromEntries(
    Object.entries({ bos_token_id, eos_token_id, pad_token_id }).filter(([, value]) => value !== null),
  );
  writeTextFile(
    join(dir, "generation_config.json"),
    `${JSON.stringify({ _from_model_config: true, ...generation }, null, 2)}\n`,
  );
}

/** JSON text in which real numbers keep their point: transformers refuses `8` where it wants the float 8.0. */
export function hfConfigText(json: JsonObject): string {
  const text = JSON.stringify(json, null, 2);
  const real =
    /"(attention_dropout|factor|high_freq_factor|llm_int8_threshold|low_freq_factor|rope_theta)": (\d+)(?=[,\n])/g;
  return `${text.replace(real, '"$1": $2.0')}\n`;
}
