/** A cell of Table 3 or 4 once more, from what its file says: the recipe is the file's, not what today's preset asks for. */
import type { Compute } from "../src/adapters/adapter.ts";
import { Problems } from "../src/errors.ts";
import type { Device } from "../src/native/device.ts";
import { differing } from "../src/training/recipe.ts";
import { type CellFile, type CellPlace, readCell } from "./cell-file.ts";
import type { ListedCell } from "./cell-tables.ts";
import { runCell, type Study } from "./run-cell.ts";
import { titleOf } from "./run-progress.ts";
import { anyMethod, dataFolder, modelFolder, readInputs, trainingFileIn } from "./study.ts";
import type { TaskTable } from "./task-tables.ts";

export interface RerunFlags {
  readonly model: string | null;
  readonly data: string | null;
  readonly out: string;
  /** Of a base model's cell, whose recipe does not say it; null: the preset's. */
  readonly compute: Compute | null;
}

/** @throws InputError when model or data are not those that the cell was made of */
export function reopenTaskCell(
  device: Device,
  table: TaskTable,
  { recipe, manifest }: CellFile,
  place: CellPlace,
  flags: RerunFlags,
): ListedCell {
  const preset = table.presets[recipe.preset];
  const { training, evaluation, heldOut } = recipe;
  const modelDir = modelFolder(preset, flags);
  const root = dataFolder(table, preset, flags);
  const trainingFile = trainingFileIn(root, preset);
  const { prompt } = training ?? preset.training;
  const { inputs, ...data } = readInputs({ modelDir, root, trainingFile, prompt, evaluation });
  checkInputs(place.name, recipe.inputs, inputs);
  const { compute } = preset.training;
  const study: Study = {
    device,
    modelDir,
    modelName: manifest.model.name,
    trainingFile,
    ...data,
    baseRecipe: {
      ...preset.training,
      ...anyMethod,
      seed: heldOut.seed,
      valSize: heldOut.records,
      cutoff: heldOut.cutoff,
      compute: flags.compute ?? compute,
    },
  };
  const plan = { place, recipe };
  return {
    title: titleOf(plan),
    place,
    read: () => readCell(place, recipe),
    run: (watch) => runCell(study, plan, watch),
  };
}

/** @throws InputError naming everything that is another file now */
export function checkInputs(name: string, old: object, now: object): void {
  const problems = new Problems();
  for (const difference of differing(old, now)) problems.add(difference);
  problems.throwIfAny(
    `${name} was made of another model or other data (SHA-256, by the recipe's inputs)`,
    "Give the folders it was made of by --model and --data: with others it is another cell.",
  );
}
