/** How much memory a process that trains will hold at most: the plan, and what stands around it. */
import type { LlamaConfig } from "../formats/hf-config.ts";
import { widestFeature } from "../model/shapes.ts";
import { type Device, reserve } from "../native/device.ts";
import { mostResidentBytes, residentBytes } from "../reporting/memory.ts";
import type { MemoryPlan } from "./plan.ts";
import type { PreparedRun } from "./prepare.ts";
import type { TrainRecipe } from "./recipe.ts";

/**
 * In bytes; `total` is their sum, or what the process has held already where that is more. Loading stays below it: a
 * model is packed matrix by matrix, and the pages of its file are let go.
 */
export interface MemoryForecast
  extends Pick<MemoryPlan, "weights" | "fixed" | "trainable" | "kept" | "scratch"> {
  /** The library's workspace. */
  readonly workspace: number;
  /** Parameters on the host: the best so far, and those that a checkpoint is written from. */
  readonly copies: number;
  /** Bun, the program, tokenizer and records, as measured when asked. */
  readonly process: number;
  readonly total: number;
}

export interface Forecastable {
  readonly config: LlamaConfig;
  readonly plan: MemoryPlan;
  readonly maxTokens: number;
  readonly rank: number;
  /** Host copies of the parameters. */
  readonly copies: number;
}

/** Asked when everything but the model is loaded; reserves the workspace that training will. */
export async function forecastMemory(device: Device, of: Forecastable): Promise<MemoryForecast> {
  const { config, plan, maxTokens: tokens, rank } = of;
  const { weights, fixed, trainable, kept, scratch, parameters } = plan;
  const process = await residentBytes();
  const workspace = reserve(device, {
    tokens,
    width: widestFeature(config),
    rank,
    vocabulary: config.vocabSize,
  });
  const parts = {
    weights,
    fixed,
    trainable,
    kept,
    scratch,
    workspace,
    copies: 4 * parameters * of.copies,
    process,
  };
  const sum = Object.values(parts).reduce((all, bytes) => all + bytes, 0);
  return { ...parts, total: Math.max(sum, mostResidentBytes() ?? 0) };
}

/** The same of a run that will validate and save. */
export function forecastRun(device: Device, run: PreparedRun, recipe: TrainRecipe): Promise<MemoryForecast> {
  const validates = run.validation.length > 0 && run.steps >= recipe.evalEvery;
  return forecastMemory(device, { ...run, rank: recipe.rank, copies: validates ? 2 : 1 });
}
