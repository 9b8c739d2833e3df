/** A training run as one typed object: everything that decides its bytes, and nothing else. */
import type { Compute, Method, MethodName } from "../adapters/adapter.ts";
import { methodNamed } from "../adapters/registry.ts";
import type { PieceLengths } from "../data/examples.ts";
import { InputError, Problems } from "../errors.ts";
import { type Quantization, quantizations } from "../model/nf4.ts";
import { type AdamWOptions, adamwDefaults } from "./optimizer.ts";
import { type ScheduleName, scheduleNames } from "./schedule.ts";

export interface TrainRecipe {
  readonly method: MethodName;
  readonly rank: number;
  readonly alpha: number;
  /** Adapter dropout p. */
  readonly dropout: number;
  readonly targets: readonly string[];
  readonly learningRate: number;
  readonly schedule: ScheduleName;
  readonly warmup: number;
  /** Optimizer steps of the schedule; null: as long as the run. */
  readonly scheduleSteps: number | null;
  readonly optimizer: AdamWOptions;
  /** Records an optimizer step. */
  readonly batch: number;
  /** Records a micro-batch: decides the loss mean only, passes are packed by tokens. */
  readonly microBatch: number;
  readonly lossMean: "micro" | "token";
  readonly lossOn: "all" | "response";
  /** Longest record in tokens, BOS included. */
  readonly cutoff: number;
  readonly epochs: number;
  /** Optimizer steps; null: as many as the epochs give. */
  readonly steps: number | null;
  readonly evalEvery: number;
  /** Records held out for the validation loss. */
  readonly valSize: number;
  readonly seed: number;
  readonly shuffle: boolean;
  /** Name of the prompt format (src/data/prompts). */
  readonly prompt: string;
  readonly compute: Compute;
  /** Prompt and reply tokenized apart, each with a limit of its own; left out where a record is one text. */
  readonly lengths?: PieceLengths;
  /** DoRA in the norm of the 4-bit experiments (protocol §1.9); left out where it is the usual one. */
  readonly doraNorm?: NonNullable<Method["norm"]>;
  /** The base's block linears in 4 bits; left out where they are as the folder has them. */
  readonly quantize?: Quantization;
  /** Hash of the indices that SBoRA must not draw (`hashIndices`); left out where there are none. */
  readonly avoidIndices?: string;
}

/** Protocol §2.1: the commonsense recipe of the paper, the default of every run. */
export const paperRecipe: TrainRecipe = {
  method: "sbora-fa",
  rank: 32,
  alpha: 64,
  dropout: 0.05,
  targets: ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
  learningRate: 2e-4,
  schedule: "linear",
  warmup: 100,
  scheduleSteps: null,
  optimizer: adamwDefaults,
  batch: 16,
  microBatch: 2,
  lossMean: "micro",
  lossOn: "all",
  cutoff: 256,
  epochs: 1,
  steps: null,
  evalEvery: 80,
  valSize: 120,
  seed: 42,
  shuffle: true,
  prompt: "llm-adapters",
  compute: "f32",
};

/** @throws InputError listing every field out of range. */
export function checkRecipe(recipe: TrainRecipe): void {
  const problems = new Problems();
  const whole = (name: keyof TrainRecipe, least: number): void => {
    const value = recipe[name];
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least) {
      problems.add(`${name} is ${value}, expected a whole number of at least ${least}`);
    }
  };
  methodNamed(recipe.method);
  if (recipe.method !== "full") whole("rank", 1);
  whole("batch", 1);
  whole("microBatch", 1);
  whole("cutoff", 2);
  whole("evalEvery", 1);
  whole("valSize", 0);
  whole("warmup", 0);
  whole("seed", 0);
  if (recipe.batch % recipe.microBatch !== 0) {
    problems.add(`microBatch is ${recipe.microBatch}, expected a divisor of batch ${recipe.batch}`);
  }
  if (recipe.steps !== null) whole("steps", 1);
  if (recipe.scheduleSteps !== null) whole("scheduleSteps", 1);
  if (!(recipe.epochs > 0)) problems.add(`epochs is ${recipe.epochs}, expected more than 0`);
  if (!(recipe.alpha > 0)) problems.add(`alpha is ${recipe.alpha}, expected more than 0`);
  if (!(recipe.dropout >= 0 && recipe.dropout < 1))
    problems.add(`dropout is ${recipe.dropout}, expected 0 <= p < 1`);
  if (recipe.method === "full" && recipe.dropout > 0)
    problems.add(`dropout is ${recipe.dropout}, expected 0: method full has no adapters to drop inputs of`);
  if (!(recipe.learningRate > 0))
    problems.add(`learningRate is ${recipe.learningRate}, expected more than 0`);
  if (!scheduleNames.includes(recipe.schedule)) {
    problems.add(`schedule is ${recipe.schedule}, expected one of ${scheduleNames.join(", ")}`);
  }
  if (recipe.quantize !== undefined) {
    if (!quantizations.includes(recipe.quantize))
      problems.add(`quantize is ${recipe.quantize}, expected one of ${quantizations.join(", ")}`);
    if (recipe.method === "full")
      problems.add("method full trains every weight, which 4-bit weights cannot be");
  }
  if (recipe.lengths !== undefined) {
    const { source, target } = recipe.lengths;
    if (
      ![source, target].every((n) => Number.isSafeInteger(n) && n >= 1) ||
      source + target !== recipe.cutoff
    )
      problems.add(
        `lengths are ${source} + ${target}, expected whole numbers of at least 1 with cutoff ${recipe.cutoff} as their sum`,
      );
  }
  if (recipe.doraNorm !== undefined && (recipe.doraNorm !== "unscaled" || recipe.method !== "dora"))
    problems.add(`doraNorm is ${recipe.doraNorm}, expected unscaled, and that with method dora alone`);
  if (recipe.targets.length === 0) problems.add("targets is empty, expected at least one linear");
  problems.throwIfAny("training recipe");
}

/** SHA-256 over the recipe's canonical JSON (sorted keys): equal recipes have equal hashes. */
export function recipeHash(recipe: unknown): string {
  return new Bun.CryptoHasher("sha256").update(canonicalJson(recipe)).digest("hex");
}

/** Paths at which two JSON values differ: "training.learningRate (0.001, now 0.0002)". */
export function differing(old: unknown, now: unknown, path = ""): string[] {
  if (isObject(old) && isObject(now)) {
    const names = [...new Set([...Object.keys(old), ...Object.keys(now)])];
    return names.flatMap((name) => differing(old[name], now[name], path === "" ? name : `${path}.${name}`));
  }
  if (isListOfObjects(old) && isListOfObjects(now) && old.length === now.length)
    return differing({ ...old }, { ...now }, path);
  const [before, after] = [JSON.stringify(old), JSON.stringify(now)];
  return before === after ? [] : [`${path} (${shortened(before)}, now ${shortened(after)})`];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isListOfObjects(value: unknown): value is readonly Record<string, unknown>[] {
  return Array.isArray(value) && value.length > 0 && value.every(isObject);
}

function shortened(text: string | undefined): string {
  if (text === undefined) return "nothing";
  return text.length > 24 ? `${text.slice(0, 24)}…` : text;
}

export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value).filter(([, v]) => v !== undefined);
    entries.sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([k, v]) => `${JSON.stringify(k)}:${canonicalJson(v)}`).join(",")}}`;
  }
  const text = JSON.stringify(value);
  if (text === undefined) throw new InputError(`a recipe holds ${String(value)}, which JSON cannot carry`);
  return text;
}
