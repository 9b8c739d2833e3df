/**
 * The file of one cell (settled 1): what was run, how it was made, what came out. It is written once, complete; a file of
 * another recipe is refused, never mixed in or overwritten.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { InputError, messageOf } from "../src/errors.ts";
import type { Prediction } from "../src/evaluation/run.ts";
import type { Measure } from "../src/evaluation/score.ts";
import { readJsonObject, writeTextFile } from "../src/formats/files.ts";
import { isObject, type JsonObject } from "../src/formats/json.ts";
import type { Manifest } from "../src/reporting/manifest.ts";
import type { StepMetrics } from "../src/training/loop.ts";
import { differing, recipeHash, type TrainRecipe } from "../src/training/recipe.ts";
import type { EvaluationRecipe, PresetName } from "./recipes/table3.ts";
import type { TaskTable } from "./task-tables.ts";

export const SCHEMA_VERSION = 1;

/** Everything that decides a cell's numbers. */
export interface CellRecipe {
  readonly table: TaskTable["name"];
  readonly preset: PresetName;
  /** null: the base model as it is. */
  readonly training: TrainRecipe | null;
  readonly evaluation: EvaluationRecipe;
  /** Which training records are held out, and where they are cut. */
  readonly heldOut: { readonly records: number; readonly seed: number; readonly cutoff: number };
  readonly inputs: {
    /** Fingerprint of the base model, SHA-256 of its tokenizer.json and of the prompt format's forms. */
    readonly base: string;
    readonly tokenizer: string;
    readonly prompt: string;
    /** SHA-256 of the training file: its validation records are measured even on the base. */
    readonly training: string;
    /** SHA-256 of every test file; null: not there. */
    readonly tests: Readonly<Record<string, string | null>>;
  };
}

export interface RulerScore {
  readonly correct: number;
  /** Percent, and its binomial standard error in points. */
  readonly accuracy: number;
  readonly standardError: number;
}

export interface TaskResult {
  readonly records: number;
  readonly scores: Readonly<Partial<Record<Measure, RulerScore>>>;
  /** Percent of the generated responses in which an answer was found. */
  readonly parsed: number | null;
  /** The answer that is right most often, and what always giving it would score. */
  readonly majority: { readonly label: string; readonly accuracy: number };
}

/** Σ negative log-likelihood / Σ tokens over the response tokens of the validation records, in nats. */
export interface HeldOut {
  readonly records: number;
  readonly tokens: number;
  /** With the adapter beside the weights; on the base there is none. */
  readonly unmerged: number;
  /** With the update added to the weights, rounded to the type they are held in. */
  readonly merged: number;
}

export interface TrainedFacts {
  readonly parameters: number;
  readonly steps: number;
  readonly bestStep: number;
  readonly bestValidationLoss: number | null;
  /** Bytes the run planned for: weights, trained state, saved activations, scratch. */
  readonly planned: { weights: number; trainable: number; kept: number; scratch: number };
}

/** What is the same whenever the recipe is run again on the same machine and commit. */
export type CellManifest = Omit<Manifest, "command" | "threads"> & { readonly trained: TrainedFacts | null };

export interface CellTiming {
  readonly command: string;
  readonly threads: number;
  readonly trainSeconds: number;
  /** Of a training step, the median. */
  readonly stepSeconds: number;
  readonly tokensPerSecond: number;
  readonly evaluateSeconds: number;
  /** Most bytes the process held while it was at this cell, Bun and mapped weights included; Linux only. */
  readonly peak?: number;
  readonly finished: string;
}

export interface CellFile {
  readonly schemaVersion: number;
  readonly recipe: CellRecipe;
  readonly recipeHash: string;
  readonly manifest: CellManifest;
  readonly tasks: CellTasks;
  readonly timing: CellTiming;
}

/** What summaries of accuracies read of a cell, whatever table it belongs to. */
export interface TaskCell extends Omit<CellFile, "recipe"> {
  readonly recipe: Pick<CellRecipe, "training">;
}

/** What cells of every experiment have in common. */
export interface AnyCell {
  readonly schemaVersion: number;
  readonly recipe: object;
  readonly recipeHash: string;
}

export interface CellTasks {
  /** By task name, in the table's order; null where the test set is not there. */
  readonly sets: Readonly<Record<string, TaskResult | null>>;
  /** null where nothing was held out. */
  readonly heldOut: HeldOut | null;
}

/** Where a cell lies. */
export interface CellPlace {
  /** `<model>-<method>-r<rank>-s<seed>` */
  readonly name: string;
  readonly json: string;
  readonly predictions: string;
  /** Loss by step, without times. */
  readonly losses: string;
  /** Training run and finished parts of the evaluation, until the cell is done. */
  readonly work: string;
}

export function cellPlace(out: string, name: string): CellPlace {
  return {
    name,
    json: join(out, `${name}.json`),
    predictions: join(out, `${name}.jsonl`),
    losses: join(out, `${name}.losses.jsonl`),
    work: join(out, ".work", name),
  };
}

const KINDS = {
  cell: { title: "Cells", parts: ["recipe", "manifest", "tasks", "timing"] },
  curve: { title: "Curves", parts: ["recipe", "manifest", "timing"] },
} as const;

/** The finished cell, or null where there is none. @throws InputError when the file belongs to another recipe, or is damaged */
export function readCell<C extends AnyCell = CellFile>(
  { json }: Pick<CellPlace, "json">,
  recipe: C["recipe"],
  kind: keyof typeof KINDS = "cell",
): C | null {
  if (!existsSync(json)) return null;
  const cell = readWhole(json, kind) as C;
  const hash = recipeHash(recipe);
  if (cell.recipeHash === hash && cell.schemaVersion === SCHEMA_VERSION) return cell;
  const differences = cell.recipe ? differing(cell.recipe, recipe) : [];
  throw new InputError(
    `${json}: this ${kind} was made by another recipe (${String(cell.recipeHash).slice(0, 12)}, this run's is ` +
      `${hash.slice(0, 12)}${differences.length > 0 ? `; they differ in ${differences.slice(0, 5).join(", ")}` : ""}). ` +
      `${KINDS[kind].title} of two recipes are never mixed: choose another --out, or move the old results away.`,
  );
}

/** A cell whatever its recipe. @throws InputError when the file is not as one was written, whole and at once */
export function readWhole(json: string, kind: keyof typeof KINDS = "cell"): AnyCell {
  const next = `It was damaged or changed by hand: delete it, and the same command makes the ${kind} again.`;
  const file = jsonOf(json, next);
  const missing = KINDS[kind].parts.filter((name) => !isObject(file[name]));
  const problems = [
    ...(missing.length > 0 ? [`${missing.join(", ")} missing`] : []),
    ...(isObject(file.recipe) && recipeHash(file.recipe) !== file.recipeHash
      ? ["its recipeHash is not the recipe's"]
      : []),
  ];
  if (problems.length > 0)
    throw new InputError(`${json}: this is no ${kind}: ${problems.join("; ")}. ${next}`);
  return file as unknown as AnyCell;
}

function jsonOf(path: string, next: string): JsonObject {
  try {
    return readJsonObject(path);
  } catch (error) {
    throw error instanceof InputError ? new InputError(`${error.message} ${next}`) : error;
  }
}

/** A prediction as its line in the .jsonl has it: no text of the record. */
export type StoredPrediction = Prediction & { readonly task: string };

/** Predictions first, the cell last: a cell that is there has all its parts. */
export function writeCell(place: CellPlace, cell: AnyCell, predictions: readonly StoredPrediction[]): void {
  makeFolder(dirname(place.json));
  writeTextFile(place.predictions, predictions.map((p) => `${JSON.stringify(p)}\n`).join(""));
  writeTextFile(place.json, `${JSON.stringify(cell, null, 2)}\n`);
}

/** @throws InputError when the file was changed by hand. */
export function readPredictions(place: CellPlace): StoredPrediction[] {
  if (!existsSync(place.predictions)) {
    throw new InputError(
      `${place.predictions}: missing beside its cell; delete ${place.json} to make both again.`,
    );
  }
  const lines = readFileSync(place.predictions, "utf8").split("\n").filter(Boolean);
  try {
    return lines.map((line) => JSON.parse(line) as StoredPrediction);
  } catch (error) {
    throw new InputError(`${place.predictions}: not JSON Lines (${messageOf(error)}).`);
  }
}

/** What a step's line of metrics.jsonl has besides times. */
export type StoredLoss = Pick<StepMetrics, "step" | "loss" | "validationLoss">;

/** Losses beside a finished cell that has none yet. */
export function keepLosses(place: CellPlace): void {
  if (!existsSync(place.losses)) writeLosses(place);
}

/** Losses of the training folder beside the cell; nothing where there is none. Those of an earlier cell are replaced. */
export function writeLosses({ losses, work }: CellPlace): void {
  const metrics = join(work, "train", "metrics.jsonl");
  if (!existsSync(metrics)) return;
  const lines = readFileSync(metrics, "utf8").split("\n").filter(Boolean);
  const kept = lines.map((line): StoredLoss => {
    const { step, loss, validationLoss } = JSON.parse(line) as StepMetrics;
    return { step, loss, ...(validationLoss === undefined ? {} : { validationLoss }) };
  });
  writeTextFile(losses, kept.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

/** By step; empty where the losses were not kept. */
export function readLosses({ losses }: Pick<CellPlace, "losses">): StoredLoss[] {
  if (!existsSync(losses)) return [];
  const lines = readFileSync(losses, "utf8").split("\n").filter(Boolean);
  try {
    return lines.map((line) => JSON.parse(line) as StoredLoss);
  } catch (error) {
    throw new InputError(`${losses}: not JSON Lines (${messageOf(error)}).`);
  }
}

export function makeFolder(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true });
  } catch (error) {
    throw new InputError(`${dir}: the folder cannot be made (${messageOf(error)}); choose another --out.`);
  }
}
