/**
 * The training loop, read from top to bottom: resume, then for every step pack, pass, clip, step, log, validate, save.
 * It knows token ids only; where they came from is the caller's business.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { planPasses, stepExamples, stepsPerEpoch, type TrainingExample } from "../data/batches.ts";
import { InputError } from "../errors.ts";
import { writeProblem, writeTextFile } from "../formats/files.ts";
import type { Llama } from "../model/model.ts";
import { widestFeature } from "../model/shapes.ts";
import { lossPass, trainPass } from "../model/train-pass.ts";
import { prepareTrainables, type Trainables, zeroGradients } from "../model/trainables.ts";
import { type Arena, createArena, freeArena } from "../native/arena.ts";
import { reserve } from "../native/device.ts";
import { streamKey } from "../native/streams.ts";
import { bytesOf, readBytes, writeBytes } from "../native/tensor.ts";
import { loadCheckpoint, saveCheckpoint } from "./checkpoint.ts";
import { adamwStep, createAdamW, freeAdamW } from "./optimizer.ts";
import type { MemoryPlan } from "./plan.ts";
import { recipeHash, type TrainRecipe } from "./recipe.ts";
import { learningRate, type Schedule } from "./schedule.ts";

/** One line of metrics.jsonl. */
export interface StepMetrics {
  readonly step: number;
  /** Weighted as the recipe's loss mean says. */
  readonly loss: number;
  readonly lr: number;
  readonly gradNorm: number;
  readonly tokens: number;
  readonly tokensPerSecond: number;
  /** Of the step alone, validation and checkpoints not counted. */
  readonly seconds: number;
  /** Σ negative log-likelihood / Σ tokens over the held-out records, where this step validated. */
  readonly validationLoss?: number;
}

export interface TrainData {
  readonly train: readonly TrainingExample[];
  readonly validation: readonly TrainingExample[];
}

export interface TrainOptions {
  readonly recipe: TrainRecipe;
  /** Holds metrics.jsonl and checkpoint/. */
  readonly out: string;
  readonly plan: MemoryPlan;
  /** Most tokens of one packed pass; the plan was made for it. */
  readonly maxTokens: number;
  readonly resume: boolean;
  /** Before the step is written down; what it throws ends the run. */
  readonly onStep?: (metrics: StepMetrics, steps: number) => void;
  /** Asked between steps; true: save a checkpoint and stop. */
  readonly shouldStop?: () => boolean;
  /** Seconds between checkpoints. */
  readonly checkpointEvery?: number;
}

export interface TrainResult {
  readonly finished: boolean;
  readonly steps: number;
  readonly bestLoss: number | null;
  readonly bestStep: number;
  /** Parameters with the best validation loss (the last ones where nothing was validated), f32 bytes. */
  readonly best: Uint8Array;
  readonly last: Uint8Array;
}

const CHECKPOINT_SECONDS = 60;

/** Optimizer steps of a run. */
export function runLength(recipe: TrainRecipe, records: number): number {
  return recipe.steps ?? Math.floor(stepsPerEpoch(records, recipe) * recipe.epochs);
}

/** Trains in place. The adapters hold the last parameters afterwards. */
export async function train(
  model: Llama,
  trained: Trainables,
  data: TrainData,
  options: TrainOptions,
): Promise<TrainResult> {
  const { recipe, out } = options;
  const { device } = model;
  const steps = runLength(recipe, data.train.length);
  if (data.train.length === 0) throw new InputError("the training data holds no records");
  if (steps < 1)
    throw new InputError(`${data.train.length} records give no full step of ${recipe.batch} records`);
  const schedule: Schedule = {
    name: recipe.schedule,
    peak: recipe.learningRate,
    warmup: recipe.warmup,
    steps: recipe.scheduleSteps ?? steps,
  };
  mkdirSync(out, { recursive: true });
  const metricsPath = join(out, "metrics.jsonl");
  const checkpointPath = join(out, "checkpoint", "state.safetensors");
  const hash = recipeHash(recipe);
  const moments = createAdamW(device, trained.parameters);
  const tensors = { parameters: trained.parameters, ...moments };
  reserve(device, {
    tokens: options.maxTokens,
    width: widestFeature(model.config),
    rank: recipe.rank,
    vocabulary: model.config.vocabSize,
  });
  const { recompute } = options.plan;
  const kept = createArena(device, options.plan.kept);
  const scratch = createArena(device, options.plan.scratch);
  // One buffer for every checkpoint, and for what is returned; none of its pages exist before.
  const staging = new Uint8Array(bytesOf(device, trained.parameters));
  try {
    // A new run leaves nothing behind that a later --resume could take for its own.
    if (!options.resume) rmSync(checkpointPath, { force: true });
    const saved = options.resume ? loadCheckpoint(checkpointPath, device, tensors, hash) : null;
    let step = saved?.step ?? 0;
    let best = { loss: saved?.bestLoss ?? null, step: saved?.bestStep ?? 0, bytes: saved?.best ?? null };
    cutMetrics(metricsPath, step);
    prepareTrainables(model, trained, scratch);
    const save = (): void => {
      const { loss: bestLoss, step: bestStep, bytes } = best;
      const state = { step, recipeHash: hash, bestLoss, bestStep, best: bytes };
      saveCheckpoint(checkpointPath, device, tensors, state, staging);
    };

    let lastSave = performance.now();
    while (step < steps) {
      if (options.shouldStop?.()) break;
      const start = performance.now();
      const examples = stepExamples(data.train, recipe, step);
      const dropout =
        recipe.dropout > 0 ? { p: recipe.dropout, key: streamKey(recipe.seed, "dropout", step) } : null;
      zeroGradients(model, trained);
      let loss = 0;
      let tokens = 0;
      for (const batch of planPasses(examples, recipe, options.maxTokens)) {
        const losses = trainPass(model, trained, batch, { kept, scratch, dropout, recompute });
        for (let i = 0; i < losses.length; i++) loss += batch.labelWeights[i]! * losses[i]!;
        tokens += batch.tokens.length;
      }
      const lr = learningRate(schedule, step);
      step++;
      const gradNorm = adamwStep(
        device,
        trained.parameters,
        trained.gradients,
        moments,
        recipe.optimizer,
        lr,
        step,
      );
      if (!Number.isFinite(gradNorm) || !Number.isFinite(loss))
        throw diverged(step, `loss ${loss}, gradient norm ${gradNorm}`, checkpointPath, recipe);
      prepareTrainables(model, trained, scratch);
      const seconds = (performance.now() - start) / 1000;
      const due = data.validation.length > 0 && step % recipe.evalEvery === 0;
      const validationLoss = due
        ? heldOutLoss(model, data.validation, kept, scratch, options.maxTokens)
        : undefined;
      // NaN would stay the best loss for good, and at the last step nothing else would tell.
      if (validationLoss !== undefined && !Number.isFinite(validationLoss))
        throw diverged(step, `validation loss ${validationLoss}`, checkpointPath, recipe);
      if (validationLoss !== undefined && (best.loss === null || validationLoss < best.loss)) {
        const bytes = readBytes(device, trained.parameters, best.bytes ?? undefined);
        best = { loss: validationLoss, step, bytes };
      }
      const metrics: StepMetrics = {
        step,
        loss,
        lr,
        gradNorm,
        tokens,
        tokensPerSecond: tokens / seconds,
        seconds,
        ...(validationLoss === undefined ? {} : { validationLoss }),
      };
      // First: who lost the folder to another process while this step ran finds out here, and writes nothing into it.
      options.onStep?.(metrics, steps);
      appendMetrics(metricsPath, metrics);
      if (performance.now() - lastSave > (options.checkpointEvery ?? CHECKPOINT_SECONDS) * 1000) {
        save();
        lastSave = performance.now();
      }
      // One macrotask a step, or signal handlers never run (settled 9).
      await Bun.sleep(0);
    }
    save();
    const last = readBytes(device, trained.parameters, staging);
    const { loss: bestLoss, step: bestStep, bytes } = best;
    return {
      finished: step >= steps,
      steps: step,
      bestLoss,
      bestStep: bytes ? bestStep : step,
      best: bytes ?? last,
      last,
    };
  } finally {
    freeArena(kept);
    freeArena(scratch);
    freeAdamW(device, moments);
  }
}

function appendMetrics(path: string, metrics: StepMetrics): void {
  try {
    appendFileSync(path, `${JSON.stringify(metrics)}\n`);
  } catch (error) {
    throw writeProblem(path, error);
  }
}

function diverged(step: number, what: string, checkpoint: string, { learningRate }: TrainRecipe): InputError {
  const kept = existsSync(checkpoint)
    ? `The last checkpoint is in ${dirname(checkpoint)}; with another --out, try`
    : "Nothing was saved yet; try";
  return new InputError(
    `training diverged at step ${step}: ${what}. ${kept} a lower --lr (now ${learningRate}) or a longer --warmup.`,
  );
}

/** Σ negative log-likelihood / Σ label tokens (settled 26). */
export function heldOutLoss(
  model: Llama,
  examples: readonly TrainingExample[],
  kept: Arena,
  scratch: Arena,
  maxTokens: number,
): number {
  let sum = 0;
  let count = 0;
  for (const batch of planPasses(examples, { lossMean: "token", microBatch: 1 }, maxTokens)) {
    for (const loss of lossPass(model, batch, { kept, scratch })) sum += loss;
    count += batch.labels.length;
  }
  return sum / count;
}

/** Puts parameters that `train` returned back into the adapters. */
export function restoreParameters(
  model: Llama,
  trained: Trainables,
  bytes: Uint8Array,
  scratch: Arena,
): void {
  writeBytes(model.device, trained.parameters, bytes);
  prepareTrainables(model, trained, scratch);
}

/** metrics.jsonl up to the checkpoint's step, so that a resumed run writes the file of an uninterrupted one. */
function cutMetrics(path: string, step: number): void {
  if (!existsSync(path)) return;
  const lines = readFileSync(path, "utf8").split("\n").filter(Boolean).slice(0, step);
  writeTextFile(path, lines.map((line) => `${line}\n`).join(""));
}
