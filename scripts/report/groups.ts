/** Which cells and curves of a folder may stand in one table or picture: what is not equal is never mixed. */
import { curveMethods, type MemoryFigure } from "../../experiments/memory-recipe.ts";
import type { CurveFile } from "../../experiments/memory-study.ts";
import { tableMethods } from "../../experiments/recipes/table3.ts";
import { setNames } from "../../experiments/recipes/table5.ts";
import { readRemarks } from "../../experiments/table-files.ts";
import type { TaskTable } from "../../experiments/task-tables.ts";
import type { MethodName } from "../../src/adapters/adapter.ts";
import { recipeHash } from "../../src/training/recipe.ts";
import { attempt, type CollectedCell, type CollectedMmlu, type Found } from "./read.ts";

/** Cells that may stand in one table: equal in everything but method, rank and seed. */
export interface CellGroup {
  readonly folder: string;
  readonly table: TaskTable;
  readonly modelName: string;
  readonly cells: readonly CollectedCell[];
  /** What the run that wrote the folder's table found in its data. */
  readonly remarks: readonly string[];
}

/** Table 5's cells that may stand together: equal in everything but set, method, rank and seed, one recipe a set. */
export interface MmluGroup {
  readonly folder: string;
  readonly modelName: string;
  readonly cells: readonly CollectedMmlu[];
  readonly remarks: readonly string[];
}

/** Curves that may stand in one picture. */
export interface CurveGroup {
  readonly folder: string;
  readonly figure: MemoryFigure;
  readonly modelName: string;
  readonly curves: readonly { readonly name: string; readonly curve: CurveFile }[];
}

export function groupsOf(folder: string, found: readonly Found[], problems: string[]): CellGroup[] {
  const cells = found.filter((one) => one.kind === "cell");
  const keyOf = ({ table, modelName, cell }: (typeof cells)[number]): string =>
    `${table.name} ${modelName} ${sharedRecipe(cell)}`;
  const remarks = cells.length > 0 ? (attempt(() => readRemarks(folder), problems) ?? []) : [];
  return [...Map.groupBy(cells, keyOf).values()].flatMap((own) => {
    const { table, modelName } = own[0]!;
    const base = own.filter(({ cell }) => cell.cell.recipe.training === null);
    const trained = own.filter(({ cell }) => cell.cell.recipe.training !== null);
    // The base has no training recipe: it stands in the table of every one of them.
    const recipes = [...Map.groupBy(trained, ({ cell }) => trainingRecipe(cell)).values()];
    return (recipes.length > 0 ? recipes : [[]]).map((rows) => ({
      folder,
      table,
      modelName,
      cells: inTableOrder(
        table,
        [...base, ...rows].map(({ cell }) => cell),
      ),
      remarks,
    }));
  });
}

/** Hash of what all rows of a table have in common, the base's too. */
function sharedRecipe({ cell: { recipe } }: CollectedCell): string {
  const { table, preset, evaluation, inputs, heldOut } = recipe;
  const { seed: _, ...held } = heldOut;
  return recipeHash({ table, preset, evaluation, inputs, held });
}

/** Hash of a training recipe without what the rows of a table differ in. */
function trainingRecipe({ cell: { recipe } }: CollectedCell): string {
  const { method: _method, rank: _rank, alpha: _alpha, seed: _seed, ...rest } = recipe.training!;
  return recipeHash(rest);
}

/** The base first, then the preset's methods in their order, rank by rank, seed by seed. */
function inTableOrder(table: TaskTable, cells: readonly CollectedCell[]): CollectedCell[] {
  const [first] = cells;
  const order = table.presets[first!.cell.recipe.preset].groups.flatMap(({ methods }) => methods);
  const rankOf = ({ cell }: CollectedCell): number[] => {
    const { training } = cell.recipe;
    if (!training) return [-1, 0, 0];
    const at = order.indexOf(training.method);
    return [training.rank, at < 0 ? order.length : at, training.seed];
  };
  return cells.toSorted((a, b) => byPlaces(rankOf(a), rankOf(b)));
}

export function mmluOf(folder: string, found: readonly Found[], problems: string[]): MmluGroup[] {
  const all = found.filter((one) => one.kind === "mmlu");
  const keyOf = ({ modelName, cell }: (typeof all)[number]): string => {
    const { preset, base, evaluation, inputs } = cell.cell.recipe;
    const { base: model, tokenizer, mmlu } = inputs;
    return `${modelName} ${recipeHash({ preset, base, evaluation, model, tokenizer, mmlu })}`;
  };
  const remarks = all.length > 0 ? (attempt(() => readRemarks(folder), problems) ?? []) : [];
  return [...Map.groupBy(all, keyOf).values()].flatMap((own) => {
    const { modelName } = own[0]!;
    const cells = own.map(({ cell }) => cell);
    const trained = cells.filter(({ cell }) => cell.recipe.training !== null);
    const recipes = [...Map.groupBy(trained, mmluTraining).values()];
    const sets = new Set(trained.map(setOf));
    // One recipe a set makes one table; with a second one every recipe has its own, the set's base in each.
    const tables =
      recipes.length <= sets.size
        ? [cells]
        : recipes.map((rows) => [
            ...cells.filter((one) => one.cell.recipe.training === null && setOf(one) === setOf(rows[0]!)),
            ...rows,
          ]);
    return tables.map((rows) => ({ folder, modelName, cells: inMmluOrder(rows), remarks }));
  });
}

function setOf({ cell }: CollectedMmlu): string {
  return cell.recipe.set;
}

/** Hash of a set and its training without what the rows of a table differ in. */
function mmluTraining({ cell: { recipe } }: CollectedMmlu): string {
  const { method: _m, rank: _r, alpha: _a, seed: _s, doraNorm: _d, ...rest } = recipe.training!;
  return recipeHash({ set: recipe.set, sample: recipe.sample, data: recipe.inputs.training, rest });
}

/** Set by set, the base first; rank by rank, the paper's methods in their order, seed by seed. */
function inMmluOrder(cells: readonly CollectedMmlu[]): CollectedMmlu[] {
  const order: readonly string[] = tableMethods;
  const placeOf = ({ cell: { recipe } }: CollectedMmlu): number[] => {
    const { rank, method, seed } = recipe.training ?? { rank: -1, method: "", seed: 0 };
    return [setNames.indexOf(recipe.set), rank, order.indexOf(method), seed];
  };
  return cells.toSorted((a, b) => byPlaces(placeOf(a), placeOf(b)));
}

function byPlaces(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((value, i) => value !== b[i]);
  return at < 0 ? 0 : a[at]! - b[at]!;
}

export function figuresOf(folder: string, found: readonly Found[]): CurveGroup[] {
  const curves = found.filter((one) => one.kind === "curve");
  const keyOf = ({ figure, modelName, curve: { recipe } }: (typeof curves)[number]): string => {
    const { method: _method, rank: _rank, alpha: _alpha, ...training } = recipe.training;
    return `${figure.name} ${modelName} ${recipeHash({ ...recipe, training })}`;
  };
  return [...Map.groupBy(curves, keyOf).values()].map((own) => {
    const { figure, modelName } = own[0]!;
    const order = curveMethods as readonly MethodName[];
    const placeOf = ({ curve }: (typeof own)[number]): number => {
      const { rank, method } = curve.recipe.training;
      return -rank * order.length + order.indexOf(method);
    };
    const inOrder = own.toSorted((a, b) => placeOf(a) - placeOf(b));
    return { folder, figure, modelName, curves: inOrder.map(({ name, curve }) => ({ name, curve })) };
  });
}
