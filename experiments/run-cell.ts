/**
 * One cell of a table: train, save the adapter, merge, evaluate, write. Whatever is finished stays on disk, so that a run
 * that was stopped goes on where it was: training from its checkpoint, the evaluation from the last task done.
 */
import { join } from "node:path";
import { encodeRecords } from "../src/data/examples.ts";
import type { InstructionRecord } from "../src/data/records.ts";
import { splitValidation } from "../src/data/split.ts";
import { evaluateTask, type Prediction } from "../src/evaluation/run.ts";
import { majority, measures, parsedShare, scoreOf } from "../src/evaluation/score.ts";
import { taskNamed } from "../src/evaluation/tasks/registry.ts";
import { freeLlama, type Llama, loadLlama } from "../src/model/model.ts";
import { widestFeature } from "../src/model/shapes.ts";
import { type Device, reserve } from "../src/native/device.ts";
import { makeManifest } from "../src/reporting/manifest.ts";
import { forgetMostResident, mostResidentBytes } from "../src/reporting/memory.ts";
import { type FineTuned, fineTune, mergedForEvaluation, validationLoss } from "../src/training/fine-tune.ts";
import type { StepMetrics } from "../src/training/loop.ts";
import { type PreparedRun, prepareRun } from "../src/training/prepare.ts";
import { recipeHash, type TrainRecipe } from "../src/training/recipe.ts";
import {
  type AnyCell,
  type CellFile,
  type CellPlace,
  type CellRecipe,
  type HeldOut,
  keepLosses,
  readCell,
  SCHEMA_VERSION,
  type StoredPrediction,
  type TaskResult,
  type TrainedFacts,
} from "./cell-file.ts";
import { type LockOptions, lockCell } from "./cell-lock.ts";
import { finishCell, keptPredictions, stepsIn } from "./cell-work.ts";

/** What the cells of one table share. */
export interface Study {
  readonly device: Device;
  readonly modelDir: string;
  /** As file names and titles call it. */
  readonly modelName: string;
  readonly trainingFile: string;
  readonly trainingRecords: readonly InstructionRecord[];
  /** Records of every test set that is there, cut to the limit. */
  readonly tests: ReadonlyMap<string, readonly InstructionRecord[]>;
  /** SHA-256 of the data files, by name. */
  readonly hashes: Readonly<Record<string, string>>;
  /** Training recipe whose split and prompt the base model is measured with. */
  readonly baseRecipe: TrainRecipe;
}

export interface CellPlan {
  readonly place: CellPlace;
  readonly recipe: CellRecipe;
}

/** What the progress line shows. */
export interface CellWatch {
  readonly onStep: (metrics: StepMetrics, steps: number) => void;
  readonly onEvaluate: (task: string, done: number, of: number) => void;
  readonly shouldStop: () => boolean;
  readonly onNote?: (text: string) => void;
}

/** The finished cell, or null when it was asked to stop. @throws InputError when another process is at work on it */
export async function runCell(study: Study, plan: CellPlan, watch: CellWatch): Promise<CellFile | null> {
  const { training } = plan.recipe;
  return finishedOrMade<CellFile>(plan, watch, (own) =>
    training ? trainedCell(study, plan, training, own) : baseCell(study, plan, own),
  );
}

/** The finished cell, else what `make` makes of it while no other process does. */
export async function finishedOrMade<C extends AnyCell>(
  { place, recipe }: { readonly place: CellPlace; readonly recipe: C["recipe"] },
  watch: CellWatch,
  make: (watch: CellWatch) => Promise<C | null>,
): Promise<C | null> {
  const finished = readCell<C>(place, recipe);
  if (finished) {
    keepLosses(place);
    return finished;
  }
  // Another process may have finished it while this one waited.
  return alone(place, watch, async (own) => readCell<C>(place, recipe) ?? make(own));
}

/**
 * Runs `use` while no other process works on the cell; what it watches with asks each time whether that still holds. Null
 * when it was asked to stop before its turn came.
 */
export async function alone<T>(
  place: CellPlace,
  watch: CellWatch,
  use: (watch: CellWatch) => Promise<T>,
  times: Partial<LockOptions> = {},
): Promise<T | null> {
  const { onNote } = watch;
  const lock = await lockCell(place, {
    ...times,
    shouldStop: watch.shouldStop,
    ...(onNote ? { onNote } : {}),
  });
  if (!lock) return null;
  const first = <A extends unknown[], R>(then: (...args: A) => R) => {
    return (...args: A): R => {
      lock.check();
      return then(...args);
    };
  };
  forgetMostResident();
  try {
    const { onStep, onEvaluate, shouldStop } = watch;
    const checked = { onStep: first(onStep), onEvaluate: first(onEvaluate), shouldStop: first(shouldStop) };
    return await use({ ...watch, ...checked });
  } finally {
    lock.release();
  }
}

async function trainedCell(
  study: Study,
  plan: CellPlan,
  training: TrainRecipe,
  watch: CellWatch,
): Promise<CellFile | null> {
  const out = join(plan.place.work, "train");
  const run = await fineTune({
    ...runInput(study, training, watch),
    device: study.device,
    out,
    resume: true,
    saveAs: "native",
    shouldStop: watch.shouldStop,
    onStep: watch.onStep,
  });
  try {
    if (!run.result.finished) return null;
    const held = heldOutExamples(study.trainingRecords, run, training);
    const unmerged = validationLoss({ ...run, validation: held });
    const model = mergedForEvaluation(run);
    const merged = validationLoss({ ...run, model, validation: held });
    const measured = { unmerged, merged, held };
    const steps = stepsIn(join(out, "metrics.jsonl"));
    return await evaluateAndWrite(study, plan, { run, model, measured, trained: factsOf(run), steps }, watch);
  } finally {
    run.close();
  }
}

async function baseCell(study: Study, plan: CellPlan, watch: CellWatch): Promise<CellFile | null> {
  const run = prepareRun(runInput(study, study.baseRecipe, watch));
  const model = loadLlama(study.device, study.modelDir, run.load);
  try {
    // Training reserves the workspace by itself; here nothing has run yet.
    const { maxTokens: tokens, config } = run;
    const { vocabSize: vocabulary } = config;
    reserve(study.device, { tokens, width: widestFeature(config), rank: study.baseRecipe.rank, vocabulary });
    const held = heldOutExamples(study.trainingRecords, run, study.baseRecipe);
    const loss = validationLoss({ ...run, model, validation: held });
    const measured = { unmerged: loss, merged: loss, held };
    return await evaluateAndWrite(study, plan, { run, model, measured, trained: null, steps: [] }, watch);
  } finally {
    freeLlama(model);
  }
}

function runInput(study: Study, recipe: TrainRecipe, watch: CellWatch) {
  const { modelDir, trainingFile: dataFile, trainingRecords: records } = study;
  return { modelDir, dataFile, records, recipe, ...(watch.onNote ? { onNote: watch.onNote } : {}) };
}

/** The validation records of a run with labels on the response alone. */
export function heldOutExamples(
  records: readonly InstructionRecord[],
  { tokenizer, prompt, config }: Pick<PreparedRun, "tokenizer" | "prompt" | "config">,
  recipe: Pick<TrainRecipe, "valSize" | "seed" | "cutoff">,
): PreparedRun["validation"] {
  const { validation } = splitValidation(records.length, recipe.valSize, recipe.seed);
  const { examples } = encodeRecords(
    records,
    {
      encode: tokenizer.encode,
      prompt,
      bosId: tokenizer.bosId,
      eosId: tokenizer.eosId ?? config.eosTokenIds[0]!,
      cutoff: recipe.cutoff,
      lossOn: "response",
    },
    validation,
  );
  return examples;
}

export function factsOf({ plan, steps, result }: FineTuned): TrainedFacts {
  const { weights, trainable, kept, scratch, parameters } = plan;
  const { bestStep, bestLoss } = result;
  return {
    parameters,
    steps,
    bestStep,
    bestValidationLoss: bestLoss,
    planned: { weights, trainable, kept, scratch },
  };
}

interface Evaluated {
  readonly run: PreparedRun;
  /** Without adapters: the base, or merged. */
  readonly model: Llama;
  readonly measured: { unmerged: number | null; merged: number | null; held: PreparedRun["validation"] };
  readonly trained: TrainedFacts | null;
  /** Every step of the run, those before a resume too. */
  readonly steps: readonly StepMetrics[];
}

async function evaluateAndWrite(
  study: Study,
  plan: CellPlan,
  { run, model, measured, trained, steps }: Evaluated,
  watch: CellWatch,
): Promise<CellFile | null> {
  const { recipe, place } = plan;
  const start = performance.now();
  const sets: Record<string, TaskResult | null> = {};
  const all: StoredPrediction[] = [];
  for (const name of recipe.evaluation.tasks) {
    const records = study.tests.get(name);
    if (!records) {
      sets[name] = null;
      continue;
    }
    if (watch.shouldStop()) return null;
    const predictions = await taskPredictions(run, model, plan, name, records, watch);
    sets[name] = resultOf(predictions);
    all.push(...predictions.map((prediction) => ({ task: name, ...prediction })));
  }
  const { timing, ...head } = describedCell(study, recipe, { trained, steps, start });
  const cell: CellFile = { ...head, tasks: { sets, heldOut: heldOutOf(measured) }, timing };
  finishCell(place, cell, all);
  return cell;
}

/** What a cell says besides its measurements. `start`: when its evaluation began (performance.now). */
export function describedCell<R extends { readonly inputs: { readonly base: string } }>(
  { device, modelName, hashes }: Pick<Study, "device" | "modelName" | "hashes">,
  recipe: R,
  { trained, steps, start }: Pick<Evaluated, "trained" | "steps"> & { readonly start: number },
) {
  const model = { name: modelName, fingerprint: recipe.inputs.base };
  const { command, threads, ...made } = makeManifest(device, model, hashes);
  const peak = mostResidentBytes();
  return {
    schemaVersion: SCHEMA_VERSION,
    recipe,
    recipeHash: recipeHash(recipe),
    manifest: { ...made, trained },
    timing: {
      command,
      threads,
      ...trainingTimes(steps),
      evaluateSeconds: (performance.now() - start) / 1000,
      ...(peak === null ? {} : { peak }),
      finished: new Date().toISOString(),
    },
  };
}

/** Predictions of one task, those of an interrupted evaluation where they are there. */
export async function taskPredictions(
  run: Pick<PreparedRun, "tokenizer" | "prompt">,
  model: Llama,
  { place, recipe }: { readonly place: CellPlace; readonly recipe: Pick<CellRecipe, "evaluation"> },
  name: string,
  records: readonly InstructionRecord[],
  watch: CellWatch,
): Promise<Prediction[]> {
  const { beams, rulers, maxNewTokens } = recipe.evaluation;
  return keptPredictions(place, recipe, name, () =>
    evaluateTask(model, run.tokenizer, taskNamed(name), records, {
      beams,
      rulers,
      ...(maxNewTokens === undefined ? {} : { maxNewTokens }),
      prompt: (record) => run.prompt.test(record),
      onProgress: (done, of) => watch.onEvaluate(name, done, of),
    }),
  );
}

/** Figures of one task from its predictions. */
export function resultOf(predictions: readonly Prediction[]): TaskResult {
  const scores: TaskResult["scores"] = Object.fromEntries(
    measures.flatMap((measure) => {
      const score = scoreOf(predictions, measure);
      if (!score) return [];
      const { correct, accuracy, standardError } = score;
      return [[measure, { correct, accuracy, standardError }]];
    }),
  );
  return {
    records: predictions.length,
    scores,
    parsed: parsedShare(predictions),
    majority: majority(predictions.map(({ label }) => label)),
  };
}

function heldOutOf({ unmerged, merged, held }: Evaluated["measured"]): HeldOut | null {
  if (unmerged === null || merged === null) return null;
  const tokens = held.reduce((sum, example) => sum + example.tokens.length - example.labelFrom, 0);
  return { records: held.length, tokens, unmerged, merged };
}

function trainingTimes(steps: readonly StepMetrics[]) {
  const seconds = steps.map((step) => step.seconds).sort((a, b) => a - b);
  const trainSeconds = seconds.reduce((sum, s) => sum + s, 0);
  const tokens = steps.reduce((sum, step) => sum + step.tokens, 0);
  return {
    trainSeconds,
    stepSeconds: seconds[Math.floor(seconds.length / 2)] ?? 0,
    tokensPerSecond: trainSeconds > 0 ? tokens / trainSeconds : 0,
  };
}
