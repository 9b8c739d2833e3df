/**
 * What lies in a cell's work folder while it is made: the training run, and the predictions of every test set that is done,
 * so that a run that was stopped asks it no second time.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { InputError } from "../src/errors.ts";
import type { Prediction } from "../src/evaluation/run.ts";
import { readJsonObject, writeTextFile } from "../src/formats/files.ts";
import type { StepMetrics } from "../src/training/loop.ts";
import { recipeHash } from "../src/training/recipe.ts";
import {
  type AnyCell,
  type CellPlace,
  makeFolder,
  type StoredPrediction,
  writeCell,
  writeLosses,
} from "./cell-file.ts";

const EVALUATED = "evaluated";

/** Predictions of one test set of this recipe: those that were kept, else made now and kept. */
export async function keptPredictions(
  { work }: Pick<CellPlace, "work">,
  recipe: object,
  name: string,
  make: () => Promise<Prediction[]>,
): Promise<Prediction[]> {
  const hash = recipeHash(recipe);
  // A subject's name has its split before a slash.
  const path = join(work, EVALUATED, `${name.replace("/", "-")}.json`);
  if (existsSync(path)) {
    const kept = readJsonObject(path);
    if (kept.recipeHash === hash) return kept.predictions as unknown as Prediction[];
  }
  const predictions = await make();
  makeFolder(join(work, EVALUATED));
  writeTextFile(path, `${JSON.stringify({ recipeHash: hash, predictions })}\n`);
  return predictions;
}

/** Writes a cell with all that lies beside it. The adapter and its metrics stay; what only a resumed run would need goes. */
export function finishCell(place: CellPlace, cell: AnyCell, predictions: readonly StoredPrediction[]): void {
  writeLosses(place);
  writeCell(place, cell, predictions);
  rmSync(join(place.work, EVALUATED), { recursive: true, force: true });
  rmSync(join(place.work, "train", "checkpoint"), { recursive: true, force: true });
}

/** The lines of metrics.jsonl. @throws InputError unless they are the steps from 1 on, each once */
export function stepsIn(path: string): StepMetrics[] {
  const lines = readFileSync(path, "utf8").split("\n").filter(Boolean);
  return lines.map((line, i) => {
    const step = parsedStep(line);
    if (step?.step === i + 1) return step;
    throw new InputError(
      `${path}: line ${i + 1} is not step ${i + 1}; the file was changed, or two runs wrote into it. Delete its folder ` +
        "to train again.",
    );
  });
}

function parsedStep(line: string): StepMetrics | null {
  try {
    return JSON.parse(line) as StepMetrics;
  } catch {
    return null;
  }
}
