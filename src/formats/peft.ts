/**
 * PEFT's adapter_config.json and tensor names, and those of the official SBoRA repository (protocol §1.8). What would
 * make an adapter compute something else than B·A (or a gather, or DoRA) is refused, other unknown fields are ignored.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { InputError, Problems } from "../errors.ts";
import { readJsonObject, writeTextFile } from "./files.ts";
import { type FieldReader, fieldReader } from "./hf-fields.ts";
import type { Json, JsonObject } from "./json.ts";

export const PEFT_CONFIG_FILE = "adapter_config.json";
export const MAX_RANK = 1 << 16;
const MAX_PATTERNS = 65_536;
/** DORA, LORAFA and SBORA are the official repository's; PEFT's DoRA is a LORA with use_dora. */
const PEFT_TYPES = ["LORA", "DORA", "LORAFA", "SBORA"] as const;
/** Other initialisations (PiSSA, OLoRA, CorDA, LoftQ) change the base weights behind the adapter. */
const HARMLESS_INITS: readonly Json[] = [true, false, "gaussian", "orthogonal", "eva"];

export type PeftType = (typeof PEFT_TYPES)[number];

export interface PeftConfig {
  readonly peftType: PeftType;
  /** SBORA only: which of the two forms, "sbora_fa" or "sbora_fb". */
  readonly adapterName: string | null;
  readonly rank: number;
  readonly alpha: number;
  readonly dropout: number;
  /** Module names (a module is adapted when its path ends with one), or one regular expression, or "all-linear". */
  readonly targetModules: readonly string[] | string;
  readonly useDora: boolean;
  /** Scaling alpha / √r in place of alpha / r. */
  readonly useRslora: boolean;
  /** Ranks and alphas of modules whose path ends with the key, a regular expression. */
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  /** "" when the file names none. */
  readonly baseModel: string;
  readonly modulesToSave: readonly string[];
}

export type PeftKeyKind = "lora_A" | "lora_B" | "magnitude";

export interface PeftKey {
  /** Module path below `model.`, e.g. `layers.0.self_attn.q_proj`. */
  readonly module: string;
  readonly kind: PeftKeyKind;
}

const KEY_PREFIX = "base_model.model.model.";
const SUFFIXES: Readonly<Record<PeftKeyKind, string>> = {
  lora_A: "lora_A.weight",
  lora_B: "lora_B.weight",
  // PEFT strips `.weight` here, so that older files (a bare parameter) stay readable.
  magnitude: "lora_magnitude_vector",
};
/**
 * Behind the module: a factor with `.weight` or without (the official index vectors), perhaps with the adapter's name
 * between, as names stand in memory; `weight_m_wdecomp` is the official DoRA's magnitude.
 */
const KEY =
  /^base_model\.model\.model\.(.+)\.(lora_A|lora_B|lora_magnitude_vector|weight_m_wdecomp)(?:\.\w+)??(?:\.weight)?$/;

export function peftKey(module: string, kind: PeftKeyKind): string {
  return `${KEY_PREFIX}${module}.${SUFFIXES[kind]}`;
}

/** Null for tensors that belong to no linear below `model.` (embedding factors, heads, whole saved modules). */
export function parsePeftKey(name: string): PeftKey | null {
  const [, module, factor] = KEY.exec(name) ?? [];
  if (module === undefined) return null;
  return { module, kind: factor === "lora_A" || factor === "lora_B" ? factor : "magnitude" };
}

/** Whether the config says that a module is adapted; `module` is its path below `model.`. */
export function isTarget(config: Pick<PeftConfig, "targetModules">, module: string): boolean {
  const { targetModules } = config;
  if (targetModules === "all-linear") return true;
  const path = `model.${module}`;
  if (typeof targetModules === "string") return new RegExp(`^(?:${targetModules})$`).test(path);
  return targetModules.some((target) => path === target || path.endsWith(`.${target}`));
}

export function peftRank(config: PeftConfig, module: string): number {
  return matching(config.rankPattern, module) ?? config.rank;
}

/** alpha / r, or alpha / √r with rsLoRA, after the module's own patterns. */
export function peftScaling(config: PeftConfig, module: string): number {
  const rank = peftRank(config, module);
  return (
    (matching(config.alphaPattern, module) ?? config.alpha) / (config.useRslora ? Math.sqrt(rank) : rank)
  );
}

/** The first pattern that the module's path ends with, as PEFT looks them up. */
function matching(patterns: Readonly<Record<string, number>>, module: string): number | undefined {
  const key = Object.keys(patterns).find((pattern) =>
    new RegExp(`^(?:.*\\.)?(?:${pattern})$`).test(`model.${module}`),
  );
  return key === undefined ? undefined : patterns[key];
}

/** @throws InputError naming every field that is wrong or that we do not support */
export function readPeftConfig(dir: string): PeftConfig {
  const path = join(dir, PEFT_CONFIG_FILE);
  if (!existsSync(path)) {
    throw new InputError(
      `${dir}: there is no ${PEFT_CONFIG_FILE}. Expected an adapter folder, as train --out or PEFT writes it.`,
    );
  }
  const problems = new Problems();
  const config = parsePeftConfig(fieldReader(readJsonObject(path), problems));
  problems.throwIfAny(
    path,
    "Only LoRA, DoRA, LoRA-FA and SBoRA adapters of linear layers are supported; save the adapter without these options.",
  );
  return config;
}

function parsePeftConfig(fields: FieldReader): PeftConfig {
  const type = fields.text("peft_type");
  const peftType = PEFT_TYPES.find((known) => known === type);
  if (!peftType) fields.problem(`peft_type is ${JSON.stringify(type)}, expected ${PEFT_TYPES.join(", ")}`);
  refuseOtherFunctions(fields);
  const adapterName = fields.text("adapter_name") || null;
  if (peftType === "SBORA" && adapterName !== "sbora_fa" && adapterName !== "sbora_fb") {
    fields.problem(`adapter_name is ${JSON.stringify(adapterName)}, expected "sbora_fa" or "sbora_fb"`);
  }
  return {
    peftType: peftType ?? "LORA",
    adapterName,
    // PEFT's defaults, which its least config leaves out.
    rank: fields.integer("r", { min: 1, max: MAX_RANK, otherwise: 8 }),
    alpha: fields.positive("lora_alpha", 8),
    dropout: dropoutOf(fields),
    targetModules: targetsOf(fields),
    useDora: fields.boolean("use_dora", false) || peftType === "DORA",
    useRslora: fields.boolean("use_rslora", false),
    rankPattern: patternsOf(fields, "rank_pattern", `whole numbers from 1 to ${MAX_RANK}`, isRank),
    alphaPattern: patternsOf(fields, "alpha_pattern", "positive numbers", (n) => n > 0 && Number.isFinite(n)),
    baseModel: fields.text("base_model_name_or_path"),
    modulesToSave: [],
  };
}

function refuseOtherFunctions(fields: FieldReader): void {
  fields.expect("bias", ["none"]);
  fields.expect("fan_in_fan_out", [false]);
  fields.expect("lora_bias", [false]);
  fields.expect("use_qalora", [false]);
  fields.expect("use_bdlora", [false]);
  fields.expect("init_lora_weights", HARMLESS_INITS);
  const empty = [
    "modules_to_save",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
  ];
  for (const name of empty) {
    const value = fields.json(name);
    if (value === undefined || (Array.isArray(value) && value.length === 0)) continue;
    fields.problem(`${name} is ${JSON.stringify(value).slice(0, 80)}, expected null`);
  }
}

function dropoutOf(fields: FieldReader): number {
  const value = fields.json("lora_dropout") ?? 0;
  if (typeof value === "number" && value >= 0 && value < 1) return value;
  fields.problem(`lora_dropout is ${JSON.stringify(value)}, expected a number from 0 to below 1`);
  return 0;
}

function targetsOf(fields: FieldReader): readonly string[] | string {
  const value = fields.json("target_modules");
  if (typeof value === "string" && value !== "" && isPattern(value)) return value;
  if (Array.isArray(value) && value.length > 0) {
    const names = value.filter((name) => typeof name === "string" && name !== "");
    if (names.length === value.length) return names as string[];
  }
  const found = value === undefined ? "missing" : JSON.stringify(value).slice(0, 80);
  fields.problem(`target_modules is ${found}, expected a list of module names or a regular expression`);
  return [];
}

const isRank = (n: number): boolean => Number.isInteger(n) && n >= 1 && n <= MAX_RANK;

function patternsOf(
  fields: FieldReader,
  name: string,
  expected: string,
  legal: (n: number) => boolean,
): Record<string, number> {
  const value = fields.json(name) ?? {};
  const entries =
    typeof value === "object" && !Array.isArray(value) ? Object.entries(value ?? {}) : [["", value]];
  const good = entries.every(([key, n]) => typeof n === "number" && legal(n) && isPattern(String(key)));
  if (good && entries.length <= MAX_PATTERNS) return Object.fromEntries(entries) as Record<string, number>;
  const shown = JSON.stringify(value).slice(0, 80);
  fields.problem(`${name} is ${shown}, expected an object of module patterns to ${expected}`);
  return {};
}

function isPattern(text: string): boolean {
  try {
    new RegExp(text);
    return true;
  } catch {
    return false;
  }
}

/** Writes the least set of fields that PEFT (for SBORA: the official repository) needs, keys sorted. */
export function writePeftConfig(dir: string, config: PeftConfig): void {
  writeTextFile(join(dir, PEFT_CONFIG_FILE), `${JSON.stringify(sorted(toJson(config)), null, 2)}\n`);
}

function toJson(config: PeftConfig): JsonObject {
  const common: JsonObject = {
    base_model_name_or_path: config.baseModel,
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: true,
    lora_alpha: config.alpha,
    lora_dropout: config.dropout,
    peft_type: config.peftType,
    r: config.rank,
    target_modules:
      typeof config.targetModules === "string" ? config.targetModules : [...config.targetModules],
    task_type: "CAUSAL_LM",
  };
  if (config.peftType === "SBORA") {
    const official = { enable_lora: null, merge_weights: false, modules_to_save: null };
    return { ...common, ...official, adapter_name: config.adapterName };
  }
  return {
    ...common,
    ...(config.useDora ? { use_dora: true } : {}),
    ...(config.useRslora ? { use_rslora: true } : {}),
    ...(Object.keys(config.rankPattern).length > 0 ? { rank_pattern: { ...config.rankPattern } } : {}),
    ...(Object.keys(config.alphaPattern).length > 0 ? { alpha_pattern: { ...config.alphaPattern } } : {}),
    ...(config.modulesToSave.length > 0 ? { modules_to_save: [...config.modulesToSave] } : {}),
  };
}

function sorted(json: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(json).sort(([a], [b]) => (a < b ? -1 : 1)));
}
