/** How long training takes here: one packed pass of the run, timed. */
import { planPasses, stepExamples } from "../data/batches.ts";
import { freeLlama, loadLlama } from "../model/model.ts";
import { widestFeature } from "../model/shapes.ts";
import { trainPass } from "../model/train-pass.ts";
import { attachTrainables, freeTrainables, zeroGradients } from "../model/trainables.ts";
import { createArena, freeArena } from "../native/arena.ts";
import { type Device, reserve, sync } from "../native/device.ts";
import { streamKey } from "../native/streams.ts";
import type { PreparedRun } from "./prepare.ts";
import type { TrainRecipe } from "./recipe.ts";

/** Seconds a token of a training pass, forward and backward, on this device; the first of two passes warms up. */
export function measureTraining(
  device: Device,
  modelDir: string,
  run: PreparedRun,
  recipe: TrainRecipe,
): number {
  const model = loadLlama(device, modelDir, run.load);
  const kept = createArena(device, run.plan.kept);
  const scratch = createArena(device, run.plan.scratch);
  const trained = attachTrainables(model, run.adapter, scratch);
  const { vocabSize: vocabulary } = model.config;
  reserve(device, {
    tokens: run.maxTokens,
    width: widestFeature(model.config),
    rank: recipe.rank,
    vocabulary,
  });
  try {
    const [batch] = planPasses(stepExamples(run.train, recipe, 0), recipe, run.maxTokens);
    if (!batch) return Number.NaN;
    const dropout =
      recipe.dropout > 0 ? { p: recipe.dropout, key: streamKey(recipe.seed, "dropout", 0) } : null;
    const { recompute } = run.plan;
    let seconds = 0;
    for (let i = 0; i < 2; i++) {
      zeroGradients(model, trained);
      sync(device);
      const start = performance.now();
      trainPass(model, trained, batch, { kept, scratch, dropout, recompute });
      sync(device);
      seconds = (performance.now() - start) / 1000;
    }
    return seconds / batch.tokens.length;
  } finally {
    freeTrainables(model, trained);
    freeLlama(model);
    freeArena(kept);
    freeArena(scratch);
  }
}
