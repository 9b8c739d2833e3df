import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { hfConfigText, type LlamaConfig, readLlamaConfig, toHfConfig, writeHfConfig } from "./hf-config.ts";
import type { JsonObject } from "./json.ts";
import { inputErrorOf, withFiles } from "./testing.ts";

/** Meta-Llama-3-8B as transformers 4 wrote it. */
const OLD: JsonObject = {
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  bos_token_id: 128000,
  eos_token_id: 128001,
  hidden_act: "silu",
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 8192,
  model_type: "llama",
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 500000,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  vocab_size: 128256,
};

/** The same as transformers 5 writes it. */
const NEW: JsonObject = {
  ...without(OLD, "rope_theta", "rope_scaling", "torch_dtype"),
  dtype: "bfloat16",
  head_dim: 128,
  rope_parameters: { rope_theta: 500000, rope_type: "default" },
};

function without(json: JsonObject, ...keys: string[]): JsonObject {
  return Object.fromEntries(Object.entries(json).filter(([key]) => !keys.includes(key)));
}

function read(config: JsonObject, generation?: JsonObject): LlamaConfig {
  const files = { "config.json": config, ...(generation ? { "generation_config.json": generation } : {}) };
  return { ...withFiles(files, readLlamaConfig), nameOrPath: "" };
}

const problem = (over: JsonObject, base = OLD): string => inputErrorOf(() => read({ ...base, ...over }));

describe("readLlamaConfig", () => {
  test("both spellings are one configuration", () => {
    const config = read(OLD);
    expect(read(NEW)).toEqual(config);
    expect(config).toEqual({
      vocabSize: 128256,
      hiddenSize: 4096,
      intermediateSize: 14336,
      layers: 32,
      heads: 32,
      kvHeads: 8,
      headSize: 128,
      maxPositions: 8192,
      rmsNormEps: 1e-5,
      ropeTheta: 500000,
      ropeScaling: null,
      tiedEmbeddings: false,
      bosTokenId: 128000,
      eosTokenIds: [128001],
      padTokenId: null,
      torchDtype: "bfloat16",
      nameOrPath: "",
    });
  });

  test("what the first LLaMA configurations leave out", () => {
    const first = {
      ...without(
        OLD,
        "num_key_value_heads",
        "rope_theta",
        "rope_scaling",
        "max_position_embeddings",
        "attention_bias",
      ),
      architectures: ["LLaMAForCausalLM"],
      max_sequence_length: 2048,
      pad_token_id: -1,
      torch_dtype: "float16",
    };
    const config = read(first);
    expect(config).toMatchObject({
      kvHeads: 32,
      ropeTheta: 10000,
      maxPositions: 2048,
      padTokenId: null,
      torchDtype: "float16",
    });
  });

  const LLAMA3 = {
    factor: 8,
    high_freq_factor: 4,
    low_freq_factor: 1,
    original_max_position_embeddings: 8192,
  };
  const SCALED = {
    type: "llama3",
    factor: 8,
    highFreqFactor: 4,
    lowFreqFactor: 1,
    originalMaxPositions: 8192,
  };

  test.each<[string, JsonObject]>([
    ["rope_scaling", { ...OLD, rope_scaling: { ...LLAMA3, rope_type: "llama3" } }],
    ["rope_scaling, older", { ...OLD, rope_scaling: { ...LLAMA3, type: "llama3" } }],
    ["rope_parameters", { ...NEW, rope_parameters: { ...LLAMA3, rope_type: "llama3", rope_theta: 500000 } }],
    [
      "rope_parameters beside rope_theta",
      { ...NEW, rope_theta: 500000, rope_parameters: { ...LLAMA3, rope_type: "llama3" } },
    ],
  ])("LLaMA 3.1's scaling in %s", (_, json) => {
    expect(read(json)).toMatchObject({ ropeTheta: 500000, ropeScaling: SCALED });
  });

  test("linear scaling", () => {
    const expected = { ropeScaling: { type: "linear", factor: 2 } };
    expect(read({ ...OLD, rope_scaling: { type: "linear", factor: 2 } })).toMatchObject(expected);
  });

  test("every id that ends a text", () => {
    expect(read(OLD, { eos_token_id: [128001, 128009] }).eosTokenIds).toEqual([128001, 128009]);
    expect(read({ ...OLD, eos_token_id: [5, 6] }).eosTokenIds).toEqual([5, 6]);
    expect(inputErrorOf(() => read(OLD, { eos_token_id: 128256 }))).toMatch(
      /generation_config\.json: eos_token_id is 128256/,
    );
  });

  test.each<[JsonObject, RegExp]>([
    [{ model_type: "mistral" }, /model_type is "mistral", expected "llama"/],
    [{ architectures: ["LlamaForSequenceClassification"] }, /architectures is .*expected LlamaForCausalLM/],
    [{ hidden_act: "gelu" }, /hidden_act is "gelu", expected "silu"/],
    [{ attention_bias: true }, /attention_bias is true, expected false/],
    [{ mlp_bias: true }, /mlp_bias is true/],
    [
      { quantization_config: { quant_method: "gptq" } },
      /quantization_config\.quant_method is "gptq", expected "bitsandbytes"/,
    ],
    [{ hidden_size: "4096" }, /hidden_size is "4096", expected an integer from 1/],
    [{ hidden_size: 4097 }, /hidden_size is 4097, expected a multiple of num_attention_heads 32/],
    [{ num_hidden_layers: null }, /num_hidden_layers is missing/],
    [{ num_key_value_heads: 5 }, /num_key_value_heads is 5, expected a divisor of num_attention_heads 32/],
    [{ head_dim: 127 }, /head_dim is 127, expected an even number/],
    [{ vocab_size: 2 ** 25 }, /vocab_size is 33554432, expected an integer from 1 to 16777216/],
    [{ rms_norm_eps: 0 }, /rms_norm_eps is 0, expected a positive number/],
    [{ rope_theta: -1 }, /rope_theta is -1/],
    [
      { rope_scaling: { rope_type: "yarn", factor: 2 } },
      /rope_type is "yarn", expected default, linear or llama3/,
    ],
    [
      { rope_scaling: { ...LLAMA3, rope_type: "llama3", high_freq_factor: 1 } },
      /high_freq_factor is 1, expected more than low_freq_factor 1/,
    ],
    [{ rope_scaling: { rope_type: "linear" } }, /rope_scaling\.factor is missing/],
    [
      { rope_parameters: { rope_theta: 10000, rope_type: "default" } },
      /rope_theta is 500000, but rope_parameters\.rope_theta is 10000/,
    ],
    [
      { rope_parameters: { rope_theta: 500000, partial_rotary_factor: 0.5 } },
      /partial_rotary_factor is 0\.5, expected 1/,
    ],
    [{ torch_dtype: "int8" }, /torch_dtype is "int8", expected one of float32/],
    [{ eos_token_id: 128256 }, /eos_token_id is 128256, expected ids below vocab_size 128256/],
    [{ bos_token_id: "<s>" }, /bos_token_id is "<s>"/],
    [{ tie_word_embeddings: 1 }, /tie_word_embeddings is 1, expected true or false/],
  ])("%j is refused", (over, expected) => {
    const text = problem(over);
    expect(text).toMatch(expected);
    expect(text).toMatch(/config\.json: .*Only LLaMA models are supported\.$/);
  });

  test("everything wrong comes at once", () => {
    const text = problem({ hidden_act: "gelu", vocab_size: 0, rope_theta: "x" });
    expect(text).toMatch(/hidden_act/);
    expect(text).toMatch(/vocab_size/);
    expect(text).toMatch(/rope_theta/);
  });

  test("no config.json", () => {
    expect(inputErrorOf(() => withFiles({}, readLlamaConfig))).toMatch(
      /there is no config\.json; expected a Hugging Face model folder/,
    );
  });
});

describe("writeHfConfig", () => {
  test.each([
    ["plain", OLD],
    [
      "linear",
      { ...OLD, rope_scaling: { type: "linear", factor: 2.5 }, eos_token_id: [1, 2], pad_token_id: 0 },
    ],
    [
      "llama3",
      {
        ...OLD,
        rope_scaling: {
          rope_type: "llama3",
          factor: 8,
          high_freq_factor: 4,
          low_freq_factor: 1,
          original_max_position_embeddings: 8192,
        },
      },
    ],
    [
      "tied, with a head size of its own",
      { ...OLD, head_dim: 64, tie_word_embeddings: true, eos_token_id: null },
    ],
  ])("what is written is read: %s", (_, json) => {
    const config = read(json);
    withFiles({}, (dir) => {
      writeHfConfig(dir, config);
      expect({ ...readLlamaConfig(dir), nameOrPath: "" }).toEqual(config);
    });
  });

  test("real numbers keep their point, as transformers wants", () => {
    const text = hfConfigText(toHfConfig(read({ ...OLD, rope_scaling: { type: "linear", factor: 2 } })));
    expect(text).toContain('"rope_theta": 500000.0');
    expect(text).toContain('"factor": 2.0');
    expect(text).toContain('"hidden_size": 4096,');
    expect(JSON.parse(text)).toMatchObject({ rope_theta: 500000, vocab_size: 128256 });
  });

  test("generation_config.json names only what there is", () =>
    withFiles({}, (dir) => {
      writeHfConfig(dir, read(OLD));
      const json = JSON.parse(readFileSync(join(dir, "generation_config.json"), "utf8"));
      expect(json).toEqual({ _from_model_config: true, bos_token_id: 128000, eos_token_id: 128001 });
    }));
});
