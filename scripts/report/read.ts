/** One file of a results folder: a table's cell, a figure's curve, or something else that says how it was made. */
import { basename } from "node:path";
import { z } from "zod";
import {
  type CellFile,
  type CellPlace,
  cellPlace,
  readLosses,
  readPredictions,
  type StoredLoss,
  type StoredPrediction,
} from "../../experiments/cell-file.ts";
import { figure3, figure4, type MemoryFigure } from "../../experiments/memory-recipe.ts";
import type { CurveFile } from "../../experiments/memory-study.ts";
import type { MmluCell } from "../../experiments/mmlu-cell-file.ts";
import type { MmluOutcome } from "../../experiments/mmlu-summary.ts";
import type { Outcome } from "../../experiments/summary.ts";
import { arithmetic, commonsense, type TaskTable } from "../../experiments/task-tables.ts";
import { InputError, messageOf } from "../../src/errors.ts";
import { measures, scoreOf } from "../../src/evaluation/score.ts";
import { readJsonObject } from "../../src/formats/files.ts";
import {
  cellShape,
  checked,
  checkHash,
  curveShape,
  lossShape,
  madeShape,
  mmluShape,
  predictionShape,
} from "./shapes.ts";

export interface CollectedCell extends Outcome {
  readonly place: CellPlace;
  readonly losses: readonly StoredLoss[];
}

export interface CollectedMmlu extends MmluOutcome {
  readonly place: CellPlace;
  readonly losses: readonly StoredLoss[];
}

/** What any file may say of how it was made. */
export interface Made {
  readonly name: string;
  readonly file: z.infer<typeof madeShape> & {
    readonly recipe?: unknown;
    readonly recipeHash?: unknown;
    readonly timing?: unknown;
  };
}

export type Found =
  | {
      readonly kind: "cell";
      readonly table: TaskTable;
      readonly modelName: string;
      readonly cell: CollectedCell;
      /** What is wrong beside the cell and does not keep it from being shown. */
      readonly problems: readonly string[];
    }
  | {
      readonly kind: "mmlu";
      readonly modelName: string;
      readonly cell: CollectedMmlu;
      readonly problems: readonly string[];
    }
  | {
      readonly kind: "curve";
      readonly figure: MemoryFigure;
      readonly modelName: string;
      readonly name: string;
      readonly curve: CurveFile;
    }
  | { readonly kind: "other"; readonly made: Made };

const tables: readonly TaskTable[] = [commonsense, arithmetic];
const figures: readonly MemoryFigure[] = [figure3, figure4];

/** null: a file of another kind, which says nothing of how it was made. @throws InputError naming the file */
export function readResult(folder: string, fileName: string): Found | null {
  const name = basename(fileName, ".json");
  const place = cellPlace(folder, name);
  const file = readJsonObject(place.json);
  const recipe = recipeOf(file.recipe);
  const table = tables.find((one) => one.name === recipe.table);
  if (table) return readTableCell(place, file, table);
  if (recipe.table === "table5") return readMmluCell(place, file);
  const figure = figures.find((one) => one.name === recipe.figure);
  if (figure) {
    checkHash({ ...file, recipe: file.recipe }, place.json);
    checked(curveShape, file, place.json);
    const curve = file as unknown as CurveFile;
    const { method, rank, seed } = curve.recipe.training;
    return { kind: "curve", figure, modelName: modelOf(place, method, rank, seed), name, curve };
  }
  if (file.recipe !== undefined) checkHash({ ...file, recipe: file.recipe }, place.json);
  else if (/-r\d+-s\d+/.test(name)) {
    throw new InputError(
      `${place.json}: there is no recipe in it, but it is named as a cell is; move it away or make it again.`,
    );
  }
  if (file.manifest === undefined) return null;
  return { kind: "other", made: { name, file: checked(madeShape, file, place.json) } };
}

function recipeOf(recipe: unknown): { table?: unknown; figure?: unknown } {
  return typeof recipe === "object" && recipe !== null ? recipe : {};
}

function readTableCell(place: CellPlace, file: object, table: TaskTable): Found {
  const shaped = checked(cellShape, file, place.json);
  checkHash({ ...file, recipe: shaped.recipe }, place.json);
  const cell = file as CellFile;
  const { training, evaluation, heldOut } = cell.recipe;
  const own = table.tasks.map(({ name }) => name);
  const foreign = evaluation.tasks.filter((task) => !own.includes(task));
  if (foreign.length > 0) {
    throw new InputError(
      `${place.json}: its tasks ${foreign.join(", ")} are none of Table ${table.number}'s (${own.join(", ")}).`,
    );
  }
  const modelName = modelOf(
    place,
    training?.method ?? "base",
    training?.rank ?? 0,
    training?.seed ?? heldOut.seed,
  );
  const { problems, ...parts } = partsOf(place, cell);
  return { kind: "cell", table, modelName, cell: { place, cell, ...parts }, problems };
}

function readMmluCell(place: CellPlace, file: object): Found {
  const shaped = checked(mmluShape, file, place.json);
  checkHash({ ...file, recipe: shaped.recipe }, place.json);
  const cell = file as MmluCell;
  const { set, training, heldOut } = cell.recipe;
  const method = `${set}-${training?.method ?? "base"}`;
  const modelName = modelOf(place, method, training?.rank ?? 0, training?.seed ?? heldOut.seed);
  const { problems, ...parts } = partsOf(place, cell);
  return { kind: "mmlu", modelName, cell: { place, cell, ...parts }, problems };
}

/** What lies beside a cell. */
function partsOf(place: CellPlace, cell: Pick<CellFile, "tasks">) {
  const predictions = readPredictions(place);
  checkPredictions(place, cell, predictions);
  return { predictions, ...lossesOf(place) };
}

/** A cell's name says what its recipe says; what stands before it is the model. */
function modelOf({ name, json }: CellPlace, method: string, rank: number, seed: number): string {
  const end = `-${method}-r${rank}-s${seed}`;
  if (name.endsWith(end) && name.length > end.length) return name.slice(0, -end.length);
  throw new InputError(
    `${json}: its recipe is that of <model>${end}, which is not its name; was it renamed? Give it its name again.`,
  );
}

/** Every score is counted again: a file that was cut or exchanged must not stand behind the cell's figures. */
function checkPredictions(
  place: CellPlace,
  { tasks }: Pick<CellFile, "tasks">,
  predictions: readonly StoredPrediction[],
): void {
  checked(z.array(predictionShape), predictions, place.predictions);
  for (const [task, set] of Object.entries(tasks.sets)) {
    const own = predictions.filter((prediction) => prediction.task === task);
    const different = measures.filter(
      (measure) => set?.scores[measure]?.correct !== scoreOf(own, measure)?.correct,
    );
    if (own.length === (set?.records ?? 0) && different.length === 0) continue;
    throw new InputError(
      `${place.predictions}: its ${own.length} predictions for ${task} are not those that ${place.json} was scored by ` +
        `(${set?.records ?? 0} records${different.length > 0 ? `; ${different.join(", ")} differ` : ""}). Delete both to make them again.`,
    );
  }
}

function lossesOf(place: CellPlace): { losses: readonly StoredLoss[]; problems: readonly string[] } {
  try {
    const losses = readLosses(place);
    checked(z.array(lossShape), losses, place.losses);
    return { losses, problems: [] };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { losses: [], problems: [error.message] };
  }
}

/** null, and its message among the problems, where a file is not as it should be. */
export function attempt<T>(read: () => T, problems: string[]): T | null {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    problems.push(messageOf(error));
    return null;
  }
}
