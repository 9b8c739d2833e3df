/**
 * One cell of Multi-SBoRA: the base, one adapter alone, or all of them merged, measured on its tasks. A cell runs as its
 * reader would with train.ts, merge.ts and evaluate.ts, and stays resumable: training from its checkpoint, the measuring
 * from the last task done.
 */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type AvoidedIndices, hashIndices, indicesOf } from "../src/adapters/avoid.ts";
import { ADAPTER_FILE, readAdapter } from "../src/adapters/storage.ts";
import { promptNamed } from "../src/data/prompts/registry.ts";
import { readLlamaConfig } from "../src/formats/hf-config.ts";
import { scoreContinuations } from "../src/generation/likelihood.ts";
import { mergeModel } from "../src/merging/merge.ts";
import { freeLlama, type Llama, loadLlama } from "../src/model/model.ts";
import type { Device } from "../src/native/device.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";
import { fineTune } from "../src/training/fine-tune.ts";
import type { StepMetrics } from "../src/training/loop.ts";
import { positionsFor } from "../src/training/prepare.ts";
import { recipeHash, type TrainRecipe } from "../src/training/recipe.ts";
import {
  type CellManifest,
  type CellPlace,
  type CellTiming,
  makeFolder,
  readCell,
  type StoredPrediction,
  type TaskResult,
  type TrainedFacts,
} from "./cell-file.ts";
import { finishCell, stepsIn } from "./cell-work.ts";
import type { TaskData } from "./multi-sbora-data.ts";
import type { AdapterRecipe, Draw, MultiRecipe } from "./multi-sbora-recipe.ts";
import { compareMerged, type Structure } from "./multi-sbora-structure.ts";
import {
  type CellWatch,
  describedCell,
  factsOf,
  heldOutExamples,
  resultOf,
  taskPredictions,
} from "./run-cell.ts";

/** What all cells share. */
export interface MultiWorld {
  readonly device: Device;
  readonly modelDir: string;
  readonly modelName: string;
  readonly tasks: ReadonlyMap<string, TaskData>;
  /** SHA-256 of the data files, by name. */
  readonly hashes: Readonly<Record<string, string>>;
}

export interface AdapterPlan {
  readonly recipe: AdapterRecipe;
  /** Folder of the training run. */
  readonly dir: string;
  /** Adapters whose indices it leaves alone, in the order of `recipe.avoids`. */
  readonly avoids: readonly AdapterPlan[];
}

export interface MultiPlan {
  readonly place: CellPlace;
  readonly recipe: MultiRecipe;
  /** In the order of `recipe.adapters`. */
  readonly adapters: readonly AdapterPlan[];
}

/** Losses of the held-out responses, record by record, so that two models can be compared on the same ones. */
export interface HeldOutLosses {
  /** Σ negative log-likelihood / Σ tokens, nats. */
  readonly loss: number;
  /** Numbers of the records in the training part. */
  readonly record: readonly number[];
  readonly tokens: readonly number[];
  /** Negative log-likelihood of the whole response. */
  readonly nats: readonly number[];
}

export interface MultiCell {
  readonly schemaVersion: number;
  readonly recipe: MultiRecipe;
  readonly recipeHash: string;
  readonly manifest: CellManifest;
  readonly tasks: {
    readonly sets: Readonly<Record<string, TaskResult>>;
    readonly heldOut: Readonly<Record<string, HeldOutLosses>>;
  };
  /** Of several SBoRA adapters merged; null: one model alone, or a method that reaches every weight. */
  readonly structure: Structure | null;
  readonly timing: CellTiming;
}

/** The finished cell, or null when it was asked to stop. */
export async function runMultiCell(
  world: MultiWorld,
  plan: MultiPlan,
  watch: CellWatch,
): Promise<MultiCell | null> {
  const finished = readCell<MultiCell>(plan.place, plan.recipe);
  if (finished) return finished;
  const { place, adapters, recipe } = plan;
  makeFolder(place.work);
  const model = join(place.work, "model");
  try {
    if (adapters.length === 0) return await measureAndWrite(world, plan, world.modelDir, nothingMade, watch);
    if (adapters.length === 1) {
      const [adapter] = adapters as [AdapterPlan];
      const trained = await trainAdapter(world, adapter, watch);
      if (!trained) return null;
      await merge(world, [adapter.dir], model, recipe.draw, watch);
      return await measureAndWrite(world, plan, model, { ...trained, structure: null }, watch);
    }
    for (const adapter of adapters) if (!(await finishedAdapter(world, adapter, watch))) return null;
    await merge(
      world,
      adapters.map(({ dir }) => dir),
      model,
      recipe.draw,
      watch,
    );
    const structure = recipe.draw && (await structureOf(world, plan, model, watch));
    return await measureAndWrite(world, plan, model, { ...nothingMade, structure }, watch);
  } finally {
    rmSync(model, { recursive: true, force: true });
  }
}

interface Made {
  readonly facts: TrainedFacts | null;
  /** Every step of the run, those before a resume too. */
  readonly steps: readonly StepMetrics[];
  readonly structure: Structure | null;
}

const nothingMade: Made = { facts: null, steps: [], structure: null };

/** Trains, or goes on; null when it was asked to stop. */
async function trainAdapter(
  world: MultiWorld,
  plan: AdapterPlan,
  watch: CellWatch,
): Promise<Omit<Made, "structure"> | null> {
  for (const other of plan.avoids) if (!(await finishedAdapter(world, other, watch))) return null;
  const avoid = avoidedBy(plan);
  const { trainingFile, training } = world.tasks.get(plan.recipe.task)!;
  const run = await fineTune({
    device: world.device,
    modelDir: world.modelDir,
    dataFile: trainingFile,
    records: training,
    recipe: recipeAvoiding(plan.recipe.training, avoid),
    out: plan.dir,
    resume: true,
    saveAs: "native",
    shouldStop: watch.shouldStop,
    onStep: watch.onStep,
    ...(avoid ? { avoid } : {}),
    ...(watch.onNote ? { onNote: watch.onNote } : {}),
  });
  try {
    if (!run.result.finished) return null;
    return { facts: factsOf(run), steps: stepsIn(join(plan.dir, "metrics.jsonl")) };
  } finally {
    run.close();
  }
}

function avoidedBy({ avoids, recipe }: AdapterPlan): AvoidedIndices | undefined {
  if (avoids.length === 0) return undefined;
  return indicesOf(
    avoids.map(({ dir }) => readAdapter(dir)),
    recipe.training.method,
  );
}

function recipeAvoiding(recipe: TrainRecipe, avoid: AvoidedIndices | undefined): TrainRecipe {
  return avoid ? { ...recipe, avoidIndices: hashIndices(avoid) } : recipe;
}

/** Makes sure that an adapter is there whose cell was finished before: its run may have been cleared away. */
async function finishedAdapter(world: MultiWorld, plan: AdapterPlan, watch: CellWatch): Promise<boolean> {
  for (const other of plan.avoids) if (!(await finishedAdapter(world, other, watch))) return false;
  // Whoever is not done yet has a checkpoint; the cell that trained it takes it away.
  if (existsSync(join(plan.dir, ADAPTER_FILE)) && !existsSync(checkpointOf(plan))) {
    const stored = readAdapter(plan.dir).metadata?.recipe;
    if (recipeHash(stored) === recipeHash(recipeAvoiding(plan.recipe.training, avoidedBy(plan)))) return true;
  }
  if (!(await trainAdapter(world, plan, watch))) return false;
  rmSync(checkpointOf(plan), { recursive: true, force: true });
  return true;
}

function checkpointOf({ dir }: AdapterPlan): string {
  return join(dir, "checkpoint");
}

/** Adapters of weight 1 merged into the base; disjoint ones must be, others add up where they meet. */
async function merge(
  { device, modelDir }: MultiWorld,
  adapters: readonly string[],
  out: string,
  draw: Draw | null,
  { onNote }: CellWatch,
): Promise<void> {
  rmSync(out, { recursive: true, force: true });
  const allowOverlap = draw !== "disjoint" && adapters.length > 1;
  await mergeModel({
    device,
    modelDir,
    adapters: adapters.map((dir) => ({ dir, weight: 1 })),
    out,
    keepOriginals: false,
    allowOverlap,
    verify: adapters.length > 1,
    // Overlap is what such a merge is about; its size stands in the table.
    ...(onNote && !allowOverlap ? { onNote } : {}),
  });
}

/** Merges each adapter alone once more and holds the merged model's weights against them. */
async function structureOf(
  world: MultiWorld,
  { adapters, place }: MultiPlan,
  merged: string,
  watch: CellWatch,
): Promise<Structure> {
  const dirs = adapters.map((_, i) => join(place.work, `alone-${i}`));
  try {
    for (const [i, { dir }] of adapters.entries()) await merge(world, [dir], dirs[i]!, null, watch);
    const alone = adapters.map(({ dir }, i) => ({ dir: dirs[i]!, folder: readAdapter(dir) }));
    return compareMerged(world.modelDir, merged, alone);
  } finally {
    for (const dir of dirs) rmSync(dir, { recursive: true, force: true });
  }
}

async function measureAndWrite(
  world: MultiWorld,
  plan: MultiPlan,
  modelDir: string,
  { facts, steps, structure }: Made,
  watch: CellWatch,
): Promise<MultiCell | null> {
  const start = performance.now();
  const { place, recipe } = plan;
  const measured = await measure(world, plan, modelDir, watch);
  if (!measured) return null;
  const { timing, ...head } = describedCell(world, recipe, { trained: facts, steps, start });
  const tasks = { sets: measured.sets, heldOut: measured.heldOut };
  const cell: MultiCell = { ...head, tasks, structure, timing };
  finishCell(place, cell, measured.predictions);
  for (const adapter of plan.adapters) rmSync(checkpointOf(adapter), { recursive: true, force: true });
  return cell;
}

interface Measured {
  readonly sets: Record<string, TaskResult>;
  readonly heldOut: Record<string, HeldOutLosses>;
  readonly predictions: readonly StoredPrediction[];
}

async function measure(
  world: MultiWorld,
  plan: MultiPlan,
  modelDir: string,
  watch: CellWatch,
): Promise<Measured | null> {
  const { evaluation, compute, cutoff } = plan.recipe;
  const positions = positionsFor(readLlamaConfig(world.modelDir), cutoff);
  const text = { tokenizer: loadTokenizer(world.modelDir), prompt: promptNamed(PROMPT) };
  const model = loadLlama(world.device, modelDir, { compute, positions });
  const sets: Record<string, TaskResult> = {};
  const heldOut: Record<string, HeldOutLosses> = {};
  const all: StoredPrediction[] = [];
  try {
    for (const name of evaluation.tasks) {
      if (watch.shouldStop()) return null;
      const data = world.tasks.get(name)!;
      const predictions = await taskPredictions(text, model, plan, name, data.tests, watch);
      sets[name] = resultOf(predictions);
      all.push(...predictions.map((prediction) => ({ task: name, ...prediction })));
      heldOut[name] = await heldOutLosses(model, text, plan.recipe, data);
    }
    return { sets, heldOut, predictions: all };
  } finally {
    freeLlama(model);
  }
}

/** Every recipe of this experiment asks in the paper's form. */
export const PROMPT = "llm-adapters";

async function heldOutLosses(
  model: Llama,
  text: Parameters<typeof taskPredictions>[0],
  { heldOut, cutoff }: MultiRecipe,
  { name, training }: TaskData,
): Promise<HeldOutLosses> {
  const { records: valSize, seed } = heldOut[name]!;
  const examples = heldOutExamples(training, { ...text, config: model.config }, { valSize, seed, cutoff });
  const answered = examples.filter(({ tokens, labelFrom }) => labelFrom < tokens.length);
  const scores = await scoreContinuations(
    model,
    answered.map(({ tokens, labelFrom }) => ({
      context: [...tokens.subarray(0, labelFrom)],
      continuations: [[...tokens.subarray(labelFrom)]],
    })),
  );
  const tokens = answered.map((example) => example.tokens.length - example.labelFrom);
  const nats = scores.map(([logarithm]) => -logarithm!);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  return { loss: sum(nats) / sum(tokens), record: answered.map(({ id }) => id), tokens, nats };
}
