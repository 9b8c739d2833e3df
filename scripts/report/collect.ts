/** What lies in a results folder: tables of task cells, and folders of other tables and figures with their own pages. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import {
  type CellFile,
  type CellPlace,
  cellPlace,
  readLosses,
  readPredictions,
  SCHEMA_VERSION,
  type StoredLoss,
} from "../../experiments/cell-file.ts";
import type { Outcome } from "../../experiments/summary.ts";
import { arithmetic, commonsense, type TaskTable } from "../../experiments/task-tables.ts";
import { InputError } from "../../src/errors.ts";
import { readJsonObject } from "../../src/formats/files.ts";
import { recipeHash } from "../../src/training/recipe.ts";

export interface CollectedCell extends Outcome {
  readonly place: CellPlace;
  readonly losses: readonly StoredLoss[];
}

/** Cells that may stand in one table: equal in everything but method, rank and seed. */
export interface CellGroup {
  readonly folder: string;
  readonly table: TaskTable;
  readonly modelName: string;
  readonly cells: readonly CollectedCell[];
}

/** A folder that another script wrote: its page in Markdown, its pictures. */
export interface PageFolder {
  readonly folder: string;
  readonly markdown: string;
  readonly pictures: readonly string[];
}

export interface Collected {
  readonly groups: readonly CellGroup[];
  readonly pages: readonly PageFolder[];
}

/** @throws InputError where the folder is missing or holds nothing to show */
export function collect(root: string): Collected {
  if (!existsSync(root)) {
    throw new InputError(
      `--results is ${root}: there is no such folder; run a table first, e.g. experiments/table3.ts.`,
    );
  }
  const groups: CellGroup[] = [];
  const pages: PageFolder[] = [];
  for (const folder of resultFolders(root)) {
    const own = groupsIn(folder);
    groups.push(...own);
    const page = own.length === 0 ? pageIn(folder) : null;
    if (page) pages.push(page);
  }
  if (groups.length === 0 && pages.length === 0) {
    throw new InputError(
      `${root}: there are no results; expected ${root}/<table>/<preset>/ with the files of a table or figure.`,
    );
  }
  return { groups, pages };
}

/** <root>/<table>/<preset>, by name. */
function resultFolders(root: string): string[] {
  const folders = (dir: string): string[] =>
    readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith("."))
      .map((entry) => join(dir, entry.name))
      .sort();
  return folders(root).flatMap(folders);
}

const tables: readonly TaskTable[] = [commonsense, arithmetic];

function groupsIn(folder: string): CellGroup[] {
  const groups = new Map<string, { table: TaskTable; modelName: string; cells: CollectedCell[] }>();
  const names = readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .sort();
  for (const name of names) {
    const found = cellIn(folder, basename(name, ".json"));
    if (!found) continue;
    const { table, modelName, cell } = found;
    const key = `${table.name} ${modelName} ${sharedRecipe(cell.cell)}`;
    const group = groups.get(key) ?? { table, modelName, cells: [] };
    group.cells.push(cell);
    groups.set(key, group);
  }
  return [...groups.values()].map((group) => ({ folder, ...group, cells: inTableOrder(group) }));
}

function cellIn(
  folder: string,
  name: string,
): { table: TaskTable; modelName: string; cell: CollectedCell } | null {
  const place = cellPlace(folder, name);
  const file = readJsonObject(place.json) as unknown as Partial<CellFile>;
  const table = tables.find((one) => one.name === file.recipe?.table);
  const [, modelName] = /^(.*)-[a-z-]+-r\d+-s\d+$/.exec(stripped(name)) ?? [];
  if (!table || modelName === undefined) return null;
  const cell = file as CellFile;
  if (cell.schemaVersion !== SCHEMA_VERSION || recipeHash(cell.recipe) !== cell.recipeHash) {
    throw new InputError(
      `${place.json}: its recipe is not the one its hash was taken of; it was changed by hand or written by another version. ` +
        "Move it away, or make the cell again.",
    );
  }
  return {
    table,
    modelName,
    cell: { place, cell, predictions: readPredictions(place), losses: readLosses(place) },
  };
}

/** The method stands between model and rank; both may have dashes in them. */
function stripped(name: string): string {
  return name.replace(/-(?:base|lora-fa|sbora-fa|sbora-fb|lora|dora|oa|full)-r(\d+)-s(\d+)$/, "-m-r$1-s$2");
}

/** Hash of a recipe without what the rows of a table differ in. */
function sharedRecipe({ recipe }: CellFile): string {
  const { table, preset, evaluation, inputs, heldOut } = recipe;
  const { seed: _, ...held } = heldOut;
  return recipeHash({ table, preset, evaluation, inputs, held });
}

/** The base first, then the preset's methods in their order, rank by rank, seed by seed. */
function inTableOrder({
  table,
  cells,
}: {
  table: TaskTable;
  cells: readonly CollectedCell[];
}): CollectedCell[] {
  const [first] = cells;
  const order = table.presets[first!.cell.recipe.preset]?.groups.flatMap(({ methods }) => methods) ?? [];
  const rankOf = ({ cell }: CollectedCell): number[] => {
    const { training } = cell.recipe;
    if (!training) return [-1, 0, 0];
    const at = order.indexOf(training.method);
    return [training.rank, at < 0 ? order.length : at, training.seed];
  };
  return cells.toSorted((a, b) => {
    const [x, y] = [rankOf(a), rankOf(b)];
    const at = x.findIndex((value, i) => value !== y[i]);
    return at < 0 ? 0 : x[at]! - y[at]!;
  });
}

function pageIn(folder: string): PageFolder | null {
  const files = readdirSync(folder).sort();
  const page = files.find((name) => name.endsWith(".md"));
  if (!page) return null;
  const read = (name: string): string => readFileSync(join(folder, name), "utf8");
  return { folder, markdown: read(page), pictures: files.filter((name) => name.endsWith(".svg")).map(read) };
}
