import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { JsonObject } from "./json.ts";
import {
  isTarget,
  type PeftConfig,
  parsePeftKey,
  peftKey,
  peftRank,
  peftScaling,
  readPeftConfig,
  writePeftConfig,
} from "./peft.ts";
import { inputErrorOf, withFiles } from "./testing.ts";

const Q = "layers.3.self_attn.q_proj";

describe("keys", () => {
  test.each([
    ["lora_A", "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight"],
    ["lora_B", "base_model.model.model.layers.3.self_attn.q_proj.lora_B.weight"],
    ["magnitude", "base_model.model.model.layers.3.self_attn.q_proj.lora_magnitude_vector"],
  ] as const)("%s", (kind, name) => {
    expect(peftKey(Q, kind)).toBe(name);
    expect(parsePeftKey(name)).toEqual({ module: Q, kind });
  });

  const prefix = `base_model.model.model.${Q}`;
  test.each([
    ["the official index vectors", `${prefix}.lora_A`, "lora_A"],
    ["the official index vectors", `${prefix}.lora_B`, "lora_B"],
    ["the official magnitude", `${prefix}.weight_m_wdecomp.weight`, "magnitude"],
    ["a magnitude with .weight", `${prefix}.lora_magnitude_vector.weight`, "magnitude"],
    ["names as in memory", `${prefix}.lora_A.default.weight`, "lora_A"],
  ] as const)("read: %s %s", (_, name, kind) => {
    expect(parsePeftKey(name)).toEqual({ module: Q, kind });
  });

  test.each([
    "base_model.model.lm_head.lora_A.weight",
    "base_model.model.model.embed_tokens.lora_embedding_A",
    "base_model.model.model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.q_proj.lora_A.weight",
    "base_model.model.model.lora_A.weight.x.y",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.bias.a.b",
    "",
  ])("%j is no factor of a linear", (name) => {
    expect(parsePeftKey(name)).toBeNull();
  });
});

/** As PEFT 0.21 writes a plain LoRA, everything it knows included. */
const FULL: JsonObject = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: "yahma/llama-7b-hf",
  bias: "none",
  corda_config: null,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 64,
  lora_bias: false,
  lora_dropout: 0.05,
  megatron_config: null,
  megatron_core: "megatron.core",
  modules_to_save: null,
  peft_type: "LORA",
  peft_version: "0.21.2",
  qalora_group_size: 16,
  r: 32,
  rank_pattern: {},
  revision: null,
  target_modules: ["q_proj", "v_proj"],
  target_parameters: null,
  task_type: "CAUSAL_LM",
  trainable_token_indices: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
};

const read = (json: JsonObject): PeftConfig => withFiles({ "adapter_config.json": json }, readPeftConfig);

describe("readPeftConfig", () => {
  test("a real one", () => {
    expect(read(FULL)).toEqual({
      peftType: "LORA",
      adapterName: null,
      rank: 32,
      alpha: 64,
      dropout: 0.05,
      targetModules: ["q_proj", "v_proj"],
      useDora: false,
      useRslora: false,
      rankPattern: {},
      alphaPattern: {},
      baseModel: "yahma/llama-7b-hf",
      modulesToSave: [],
    });
  });

  test("the least one", () => {
    const least = read({ peft_type: "LORA", target_modules: ["q_proj", "v_proj"] });
    expect(least).toMatchObject({ rank: 8, alpha: 8, dropout: 0, baseModel: "" });
  });

  test("the official repository's", () => {
    const official = { enable_lora: null, merge_weights: false, modules_to_save: null };
    const sbora = read({ ...FULL, ...official, peft_type: "SBORA", adapter_name: "sbora_fb" });
    expect(sbora).toMatchObject({ peftType: "SBORA", adapterName: "sbora_fb" });
    const dora = read({
      ...FULL,
      ...official,
      peft_type: "DORA",
      dora_simple: true,
      Wdecompose_target_modules: null,
    });
    expect(dora).toMatchObject({ peftType: "DORA", useDora: true });
    expect(read({ ...FULL, ...official, peft_type: "LORAFA", init: "uniform" }).peftType).toBe("LORAFA");
  });

  test.each<[JsonObject, RegExp]>([
    [{ peft_type: "IA3" }, /peft_type is "IA3", expected LORA, DORA, LORAFA, SBORA/],
    [{ peft_type: "SBORA" }, /adapter_name is null, expected "sbora_fa" or "sbora_fb"/],
    [{ bias: "all" }, /bias is "all", expected "none"/],
    [{ lora_bias: true }, /lora_bias is true, expected false/],
    [{ fan_in_fan_out: true }, /fan_in_fan_out is true/],
    [{ modules_to_save: ["lm_head"] }, /modules_to_save is \["lm_head"\], expected null/],
    [{ layer_replication: [[0, 2]] }, /layer_replication is/],
    [{ trainable_token_indices: [1] }, /trainable_token_indices is/],
    [{ target_parameters: ["x"] }, /target_parameters is/],
    [{ alora_invocation_tokens: [1] }, /alora_invocation_tokens is/],
    [{ use_qalora: true }, /use_qalora is true/],
    [{ init_lora_weights: "pissa_niter_16" }, /init_lora_weights is "pissa_niter_16"/],
    [{ r: 0 }, /r is 0, expected an integer from 1/],
    [{ r: 1.5 }, /r is 1\.5/],
    [{ lora_alpha: 0 }, /lora_alpha is 0, expected a positive number/],
    [{ lora_dropout: 1 }, /lora_dropout is 1, expected a number from 0 to below 1/],
    [{ target_modules: null }, /target_modules is missing/],
    [{ target_modules: [] }, /target_modules is \[\]/],
    [
      { target_modules: [3] },
      /target_modules is \[3\], expected a list of module names or a regular expression/,
    ],
    [{ target_modules: "(" }, /target_modules is "\("/],
    [{ rank_pattern: { q_proj: "8" } }, /rank_pattern is \{"q_proj":"8"\}, expected an object/],
    [{ rank_pattern: { q_proj: 2.5 } }, /rank_pattern is .*whole numbers from 1 to 65536/],
    [{ rank_pattern: { q_proj: 1e300 } }, /rank_pattern is /],
    [{ alpha_pattern: [1] }, /alpha_pattern is \[1\]/],
    [{ use_dora: "yes" }, /use_dora is "yes", expected true or false/],
  ])("%j is refused", (over, expected) => {
    const text = inputErrorOf(() => read({ ...FULL, ...over }));
    expect(text).toMatch(expected);
    expect(text).toMatch(/adapter_config\.json: .*save the adapter without these options\.$/);
  });

  test("no file", () => {
    expect(inputErrorOf(() => withFiles({}, readPeftConfig))).toMatch(/there is no adapter_config\.json/);
  });
});

describe("targets, ranks, scaling", () => {
  test.each<[string | string[], string[], string[]]>([
    [
      ["q_proj", "mlp.up_proj"],
      [Q, "layers.0.mlp.up_proj"],
      ["layers.0.self_attn.k_proj", "layers.0.self_attn.xq_proj"],
    ],
    [String.raw`.*\.self_attn\.(q|v)_proj`, [Q], ["layers.0.mlp.up_proj", `${Q}.x`]],
    [String.raw`model\.layers\.3\..*`, [Q], ["layers.4.self_attn.q_proj"]],
    ["all-linear", [Q, "layers.0.mlp.up_proj"], []],
  ])("%j", (targetModules, yes, no) => {
    for (const module of yes) expect(isTarget({ targetModules }, module)).toBe(true);
    for (const module of no) expect(isTarget({ targetModules }, module)).toBe(false);
  });

  test("alpha / r, alpha / √r, and patterns by module", () => {
    const plain = read(FULL);
    expect(peftScaling(plain, Q)).toBe(2);
    expect(peftScaling({ ...plain, useRslora: true, rank: 16, alpha: 8 }, Q)).toBe(2);
    const patterns = {
      ...plain,
      rankPattern: { "layers.3.*q_proj": 8, k_proj: 4 },
      alphaPattern: { q_proj: 16 },
    };
    expect(peftRank(patterns, Q)).toBe(8);
    expect(peftRank(patterns, "layers.4.self_attn.q_proj")).toBe(32);
    expect(peftScaling(patterns, Q)).toBe(2);
    expect(peftScaling(patterns, "layers.4.self_attn.q_proj")).toBe(0.5);
    expect(peftScaling(patterns, "layers.4.self_attn.k_proj")).toBe(16);
  });
});

describe("writePeftConfig", () => {
  const plain = read(FULL);
  const written = (config: PeftConfig): string =>
    withFiles({}, (dir) => {
      writePeftConfig(dir, config);
      return readFileSync(join(dir, "adapter_config.json"), "utf8");
    });

  test("LoRA: the least set, keys sorted, two spaces", () => {
    expect(written(plain)).toBe(
      `{
  "base_model_name_or_path": "yahma/llama-7b-hf",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "lora_alpha": 64,
  "lora_dropout": 0.05,
  "peft_type": "LORA",
  "r": 32,
  "target_modules": [
    "q_proj",
    "v_proj"
  ],
  "task_type": "CAUSAL_LM"
}
`,
    );
  });

  test("SBoRA: the official repository's fields", () => {
    const json = JSON.parse(written({ ...plain, peftType: "SBORA", adapterName: "sbora_fa" }));
    expect(json).toMatchObject({
      adapter_name: "sbora_fa",
      peft_type: "SBORA",
      merge_weights: false,
      enable_lora: null,
    });
    expect(Object.keys(json)).toEqual(Object.keys(json).toSorted());
  });

  test.each<[string, Partial<PeftConfig>]>([
    ["LoRA", {}],
    ["DoRA", { useDora: true }],
    ["rsLoRA with patterns", { useRslora: true, rankPattern: { q_proj: 4 }, alphaPattern: { q_proj: 8 } }],
    ["a regular expression", { targetModules: ".*_proj" }],
    ["SBoRA-FB", { peftType: "SBORA", adapterName: "sbora_fb" }],
  ])("what is written is read: %s", (_, over) => {
    const config = { ...plain, ...over };
    expect(read(JSON.parse(written(config)))).toEqual(config);
  });
});
