/**
 * One cell of Table 5: train on the 4-bit base, ask MMLU with the adapter of the last step beside the weights (protocol
 * §1.9), then merge it and measure the held-out replies once more. Whatever is finished stays on disk, so that a run that
 * was stopped goes on where it was.
 */

import { join } from "node:path";
import type { MmluSplit } from "../src/data/mmlu.ts";
import {
  encodeMmlu,
  type LetterIds,
  letterIds,
  type MmluPrompts,
  type MmluRun,
  scoreMmlu,
} from "../src/evaluation/mmlu.ts";
import type { Prediction } from "../src/evaluation/run.ts";
import { freeLlama, type Llama, loadLlama } from "../src/model/model.ts";
import { widestFeature } from "../src/model/shapes.ts";
import { withArena } from "../src/native/arena.ts";
import { reserve } from "../src/native/device.ts";
import { mean } from "../src/reporting/statistics.ts";
import type { Tokenizer } from "../src/text/tokenizer.ts";
import { fineTune, mergedForEvaluation, validationLoss } from "../src/training/fine-tune.ts";
import { restoreParameters, type StepMetrics } from "../src/training/loop.ts";
import { type PreparedRun, prepareRun } from "../src/training/prepare.ts";
import type { HeldOut, StoredPrediction, TrainedFacts } from "./cell-file.ts";
import { finishCell, keptPredictions, stepsIn } from "./cell-work.ts";
import { type MmluCell, type MmluPlan, type MmluResult, resultName } from "./mmlu-cell-file.ts";
import type { MmluStudy } from "./mmlu-study.ts";
import { type CellWatch, describedCell, factsOf, finishedOrMade, resultOf } from "./run-cell.ts";

/** The finished cell, or null when it was asked to stop. @throws InputError when another process is at work on it */
export async function runMmluCell(
  study: MmluStudy,
  plan: MmluPlan,
  watch: CellWatch,
): Promise<MmluCell | null> {
  return finishedOrMade<MmluCell>(plan, watch, (own) =>
    plan.recipe.training ? trainedCell(study, plan, own) : baseCell(study, plan, own),
  );
}

async function trainedCell(study: MmluStudy, plan: MmluPlan, watch: CellWatch): Promise<MmluCell | null> {
  const out = join(plan.place.work, "train");
  const run = await fineTune({
    ...runInput(study, plan, watch),
    device: study.device,
    out,
    resume: true,
    saveAs: "native",
    shouldStop: watch.shouldStop,
    onStep: watch.onStep,
  });
  try {
    if (!run.result.finished) return null;
    withArena(study.device, run.plan.scratch, (scratch) =>
      restoreParameters(run.model, run.trained, run.result.last, scratch),
    );
    const unmerged = validationLoss(run);
    const asked = await askAll(study, plan, run, run.model, watch);
    if (!asked) return null;
    const merged = validationLoss({ ...run, model: mergedForEvaluation(run) });
    const facts = { trained: factsOf(run), steps: stepsIn(join(out, "metrics.jsonl")) };
    return written(study, plan, { ...asked, ...facts, heldOut: heldOutOf(run, unmerged, merged) });
  } finally {
    run.close();
  }
}

async function baseCell(study: MmluStudy, plan: MmluPlan, watch: CellWatch): Promise<MmluCell | null> {
  const run = prepareRun(runInput(study, plan, watch));
  const model = loadLlama(study.device, study.modelDir, run.load);
  try {
    // Training reserves the workspace by itself; here nothing has run yet.
    const { maxTokens: tokens, config } = run;
    const { vocabSize: vocabulary } = config;
    reserve(study.device, { tokens, width: widestFeature(config), rank: plan.training.rank, vocabulary });
    const loss = validationLoss({ ...run, model });
    const asked = await askAll(study, plan, run, model, watch);
    if (!asked) return null;
    return written(study, plan, { ...asked, trained: null, steps: [], heldOut: heldOutOf(run, loss, loss) });
  } finally {
    freeLlama(model);
  }
}

/** What a cell prepares, trained or not. */
export function runInput(
  { modelDir, sets, preset: { recompute } }: MmluStudy,
  { training, recipe }: MmluPlan,
  { onNote }: Pick<CellWatch, "onNote">,
) {
  const { path: dataFile, records } = sets.get(recipe.set)!;
  return { modelDir, dataFile, records, recipe: training, recompute, ...(onNote ? { onNote } : {}) };
}

/** Labels stand on the replies alone already (`lossOn`). */
function heldOutOf(
  { validation }: Pick<PreparedRun, "validation">,
  unmerged: number | null,
  merged: number | null,
): HeldOut | null {
  if (unmerged === null || merged === null) return null;
  const tokens = validation.reduce((sum, example) => sum + example.tokens.length - example.labelFrom, 0);
  return { records: validation.length, tokens, unmerged, merged };
}

/** A subject's questions as token ids. */
interface AskedSubject extends MmluRun, MmluPrompts {
  readonly name: string;
}

interface AskedAll {
  readonly ids: LetterIds;
  readonly subjects: readonly AskedSubject[];
}

/** Every cell of a study asks the same: tokenized once. */
const encodings = new WeakMap<MmluStudy["mmlu"], AskedAll>();

export function encodedMmlu(
  { mmlu, modelDir, cells }: MmluStudy,
  tokenizer: Pick<Tokenizer, "encode" | "bosId" | "encodeWithoutBos">,
): AskedAll {
  const known = encodings.get(mmlu);
  if (known) return known;
  const { evaluation } = cells[0]!.recipe;
  const subjects = [...mmlu].flatMap(([split, set]) =>
    set.subjects.map((subject): AskedSubject => {
      const name = resultName(split as MmluSplit, subject.subject);
      return { name, questions: subject.questions, ...encodeMmlu(tokenizer, subject, evaluation) };
    }),
  );
  const encoded = { ids: letterIds(tokenizer, modelDir), subjects };
  encodings.set(mmlu, encoded);
  return encoded;
}

interface Asked {
  readonly sets: Readonly<Record<string, MmluResult>>;
  readonly predictions: readonly StoredPrediction[];
  /** When the evaluation began (performance.now). */
  readonly start: number;
}

/** All subjects of all splits; null when it was asked to stop. */
async function askAll(
  study: MmluStudy,
  plan: MmluPlan,
  { tokenizer }: Pick<PreparedRun, "tokenizer">,
  model: Llama,
  watch: CellWatch,
): Promise<Asked | null> {
  const start = performance.now();
  const { ids, subjects } = encodedMmlu(study, tokenizer);
  const total = subjects.reduce((sum, { questions }) => sum + questions.length, 0);
  const sets: Record<string, MmluResult> = {};
  const predictions: StoredPrediction[] = [];
  for (const subject of subjects) {
    if (watch.shouldStop()) return null;
    const before = predictions.length;
    const own = await keptPredictions(plan.place, plan.recipe, subject.name, () =>
      scoreMmlu(model, subject, ids, (done) => watch.onEvaluate("MMLU", before + done, total)),
    );
    sets[subject.name] = mmluResult(own, subject.shortened);
    predictions.push(...own.map((prediction) => ({ task: subject.name, ...prediction })));
  }
  return { sets, predictions, start };
}

export function mmluResult(predictions: readonly Prediction[], shortened: number): MmluResult {
  const spaced = predictions.flatMap(({ spacedNats }) => spacedNats ?? []);
  return {
    ...resultOf(predictions),
    labelNats: mean(predictions.map(({ labelNats }) => labelNats!)),
    spacedNats: spaced.length > 0 ? mean(spaced) : null,
    shortened,
  };
}

interface Measured extends Asked {
  readonly trained: TrainedFacts | null;
  readonly steps: readonly StepMetrics[];
  readonly heldOut: HeldOut | null;
}

function written(
  study: MmluStudy,
  { place, recipe }: MmluPlan,
  { sets, predictions, heldOut, ...facts }: Measured,
): MmluCell {
  const { timing, ...head } = describedCell(study, recipe, facts);
  const cell: MmluCell = { ...head, tasks: { sets, heldOut }, timing };
  finishCell(place, cell, predictions);
  return cell;
}
