/** The metadata of a LLaMA's GGUF file as a Hugging Face configuration. */
import { InputError, Problems } from "../errors.ts";
import { type GgufFile, type GgufTensor, type GgufValue, readGgufTensor } from "./gguf.ts";
import { dequantize } from "./gguf-quants.ts";
import { checkLlamaConfig, type LlamaConfig, type RopeScalingConfig } from "./hf-config.ts";
import { ROPE_FACTORS, scalingOfFactors } from "./llama3-rope.ts";

const MAX_VALUE = 2 ** 31;

/** Typed access to metadata; what is wrong is collected and a harmless value given. */
export interface MetadataReader {
  integer(key: string, otherwise?: number): number;
  positive(key: string, otherwise?: number): number;
  boolean(key: string, otherwise: boolean): boolean;
  /** "" when absent. */
  text(key: string): string;
  texts(key: string): readonly string[];
  numbers(key: string): readonly number[];
  /** A token id; null when absent. */
  id(key: string): number | null;
}

export function metadataReader(file: GgufFile, problems: Problems): MetadataReader {
  const get = (key: string): GgufValue | undefined => file.metadata.get(key);
  const wrong = (key: string, expected: string): void => {
    const value = get(key);
    const found =
      value === undefined ? "missing" : Array.isArray(value) ? `an array of ${value.length}` : String(value);
    problems.add(`${key} is ${found.slice(0, 80)}, expected ${expected}`);
  };
  const list = <T>(
    key: string,
    is: (value: GgufValue) => value is T & GgufValue,
    what: string,
  ): readonly T[] => {
    const value = get(key);
    if (Array.isArray(value) && value.every(is)) return value as readonly T[];
    wrong(key, `an array of ${what}`);
    return [];
  };
  return {
    integer(key, otherwise) {
      const value = get(key) ?? otherwise;
      if (typeof value === "number" && Number.isInteger(value) && value > 0 && value < MAX_VALUE)
        return value;
      wrong(key, "a positive integer");
      return 1;
    },
    positive(key, otherwise) {
      const value = get(key) ?? otherwise;
      if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
      wrong(key, "a positive number");
      return 1;
    },
    boolean(key, otherwise) {
      const value = get(key) ?? otherwise;
      if (typeof value === "boolean") return value;
      wrong(key, "a boolean");
      return otherwise;
    },
    text(key) {
      const value = get(key) ?? "";
      if (typeof value === "string") return value;
      wrong(key, "a string");
      return "";
    },
    texts: (key) => list(key, (value) => typeof value === "string", "strings"),
    numbers: (key) => list(key, (value) => typeof value === "number", "numbers"),
    id(key) {
      const value = get(key);
      if (value === undefined) return null;
      if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value < MAX_VALUE)
        return value;
      wrong(key, "a token id");
      return null;
    },
  };
}

/** @throws InputError naming every metadata key that is wrong, or the architecture when it is not a LLaMA */
export function llamaConfigOf(file: GgufFile): LlamaConfig {
  const problems = new Problems();
  const read = metadataReader(file, problems);
  const architecture = read.text("general.architecture");
  if (architecture !== "llama") {
    throw new InputError(
      `${file.path}: general.architecture is "${architecture}", expected "llama"; only LLaMA models are supported.`,
    );
  }
  const heads = read.integer("llama.attention.head_count");
  const hiddenSize = read.integer("llama.embedding_length");
  const headSize = read.integer("llama.attention.key_length", Math.floor(hiddenSize / heads) || 1);
  const same = (key: string, expected: number, what: string): void => {
    const value = read.integer(key, expected);
    if (value !== expected) problems.add(`${key} is ${value}, expected the ${what} ${expected}`);
  };
  same("llama.attention.value_length", headSize, "head size");
  same("llama.rope.dimension_count", headSize, "head size");
  if (file.metadata.has("llama.expert_count"))
    problems.add("llama.expert_count is set, expected a dense model");
  const config: LlamaConfig = {
    vocabSize: file.tensors.get("token_embd.weight")?.shape[0] ?? read.integer("llama.vocab_size"),
    hiddenSize,
    intermediateSize: read.integer("llama.feed_forward_length"),
    layers: read.integer("llama.block_count"),
    heads,
    kvHeads: read.integer("llama.attention.head_count_kv", heads),
    headSize,
    maxPositions: read.integer("llama.context_length"),
    rmsNormEps: decimalOf(read.positive("llama.attention.layer_norm_rms_epsilon")),
    ropeTheta: decimalOf(read.positive("llama.rope.freq_base", 10_000)),
    ropeScaling: null,
    tiedEmbeddings: !file.tensors.has("output.weight"),
    bosTokenId: read.id("tokenizer.ggml.bos_token_id"),
    eosTokenIds: eosIdsOf(read),
    padTokenId: read.id("tokenizer.ggml.padding_token_id"),
    torchDtype: "bfloat16",
    nameOrPath: read.text("general.name") || file.path,
  };
  const ropeScaling = ropeScalingOf(file, read, config, problems);
  problems.throwIfAny(file.path, "Only plain LLaMA models are supported.");
  const whole = { ...config, ropeScaling };
  checkLlamaConfig(whole, problems);
  problems.throwIfAny(`${file.path}, as config.json`, "Only plain LLaMA models are supported.");
  return whole;
}

/** End of text, and end of turn where the file names one. */
function eosIdsOf(read: MetadataReader): number[] {
  const ids = [read.id("tokenizer.ggml.eos_token_id"), read.id("tokenizer.ggml.eot_token_id")];
  return [...new Set(ids.filter((id) => id !== null))];
}

function ropeScalingOf(
  file: GgufFile,
  read: MetadataReader,
  config: LlamaConfig,
  problems: Problems,
): RopeScalingConfig {
  const type = read.text("llama.rope.scaling.type") || "none";
  const divisors = file.tensors.get(ROPE_FACTORS);
  if (divisors && type !== "none")
    problems.add(`llama.rope.scaling.type is "${type}", and there is ${ROPE_FACTORS}`);
  if (divisors) return llama3ScalingOf(file, divisors, config, problems);
  if (type === "none") return null;
  if (type === "linear") return { type, factor: read.positive("llama.rope.scaling.factor") };
  problems.add(`llama.rope.scaling.type is "${type}", expected none or linear`);
  return null;
}

/** LLaMA 3.1's scaling, told by the tensor of its divisors; what is another function is refused. */
function llama3ScalingOf(
  file: GgufFile,
  tensor: GgufTensor,
  config: LlamaConfig,
  problems: Problems,
): RopeScalingConfig {
  const { type, shape } = tensor;
  if (type.name !== "F32" || shape.join() !== String(config.headSize / 2)) {
    const found = `${type.name} [${shape.join(", ")}]`;
    problems.add(`tensor ${ROPE_FACTORS} is ${found}, expected F32 [${config.headSize / 2}]`);
    return null;
  }
  const divisors = dequantize(type, readGgufTensor(file, tensor));
  if (divisors.every((divisor) => divisor === 1)) return null;
  const scaling = scalingOfFactors(divisors, config);
  if (scaling) return scaling;
  const [first, last] = [divisors[0]!, divisors.at(-1)!].map((divisor) => divisor.toPrecision(6));
  problems.add(
    `tensor ${ROPE_FACTORS} holds ${divisors.length} divisors from ${first} to ${last}, which are not LLaMA 3.1's for ` +
      `llama.rope.freq_base ${config.ropeTheta} (factor ${last}, low 1, high 4, original context 8192)`,
  );
  return null;
}

/** The shortest decimal that is the same f32: the file holds f32(1e-5), the configuration meant 1e-5. */
export function decimalOf(value: number): number {
  for (let digits = 1; digits < 17; digits++) {
    const decimal = Number(value.toPrecision(digits));
    if (Math.fround(decimal) === Math.fround(value)) return decimal;
  }
  return value;
}
