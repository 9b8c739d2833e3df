/** From preset and flags to a study: which model, which data, which cells. Everything wrong with them is found here. */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import type { Compute, MethodName } from "../src/adapters/adapter.ts";
import { checkRank, methodNamed } from "../src/adapters/registry.ts";
import { promptHash, promptNamed } from "../src/data/prompts/registry.ts";
import { readInstructionRecords } from "../src/data/records.ts";
import { InputError } from "../src/errors.ts";
import { readTaskRecords, taskFile } from "../src/evaluation/task.ts";
import { tasksNamed } from "../src/evaluation/tasks/registry.ts";
import { fingerprintModel } from "../src/formats/fingerprint.ts";
import { readLlamaConfig } from "../src/formats/hf-config.ts";
import { targetedLinears } from "../src/model/shapes.ts";
import type { Device } from "../src/native/device.ts";
import { fileHash } from "../src/reporting/manifest.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";
import type { TrainRecipe } from "../src/training/recipe.ts";
import { type CellRecipe, cellPlace } from "./cell-file.ts";
import { type EvaluationRecipe, type Group, type Preset, SCALING, tableMethods } from "./recipes/table3.ts";
import type { CellPlan, Study } from "./run-cell.ts";
import type { TaskTable } from "./task-tables.ts";
import { TINY_MODEL } from "./tiny/data.ts";

/** What the command line may change; null: as the preset says. */
export interface StudyFlags {
  readonly model: string | null;
  readonly data: string | null;
  readonly methods: readonly string[] | null;
  readonly ranks: readonly number[] | null;
  readonly seeds: readonly number[] | null;
  readonly steps: number | null;
  readonly learningRate: number | null;
  readonly limit: number | null;
  readonly tasks: readonly string[] | null;
  readonly beams: number | null;
  readonly compute: Compute | null;
  readonly out: string;
}

export interface OpenedStudy extends Study {
  readonly table: TaskTable;
  readonly preset: Preset;
  /** The base model's row first, then the methods in the paper's order. */
  readonly cells: readonly CellPlan[];
  readonly missing: readonly string[];
}

export function openStudy(device: Device, table: TaskTable, preset: Preset, flags: StudyFlags): OpenedStudy {
  const modelDir = modelFolder(preset, flags);
  const config = readLlamaConfig(modelDir);
  const groups = chosenGroups(preset, flags);
  for (const { method, rank } of entries(groups)) {
    for (const shape of targetedLinears(config, preset.training.targets)) {
      checkRank(methodNamed(method), rank, shape);
    }
  }
  const tasks = flags.tasks === null ? preset.evaluation.tasks : chosenTasks(table, flags.tasks);
  const root = dataFolder(table, preset, flags);
  const trainingFile = trainingFileIn(root, preset);
  const evaluation = evaluationOf(preset, flags, tasks);
  const training = trainingWith(preset.training, flags);
  const modelName = flags.model === null ? preset.model : slug(basename(modelDir));
  const { inputs, ...data } = readInputs({
    modelDir,
    root,
    trainingFile,
    prompt: training.prompt,
    evaluation,
  });
  const plan = (method: string, rank: number, recipe: TrainRecipe | null, seed: number): CellPlan => ({
    place: cellPlace(flags.out, `${modelName}-${method}-r${rank}-s${seed}`),
    recipe: {
      table: table.name,
      preset: preset.name,
      training: recipe,
      evaluation,
      heldOut: { records: training.valSize, seed, cutoff: training.cutoff },
      inputs,
    },
  });
  const seeds = flags.seeds ?? preset.seeds;
  // Seed by seed, so that a run that is stopped leaves whole tables behind.
  const trained = seeds.flatMap((seed) =>
    entries(groups).map(({ method, rank }) => {
      const own = { ...training, method, rank, alpha: SCALING * rank, seed };
      // It has no adapters, whose dropout this is: a cell says what was done.
      return plan(method, rank, method === "full" ? { ...own, dropout: 0 } : own, seed);
    }),
  );
  return {
    device,
    table,
    preset,
    modelDir,
    modelName,
    trainingFile,
    ...data,
    baseRecipe: { ...training, ...anyMethod, seed: seeds[0]! },
    cells: [plan("base", 0, null, seeds[0]!), ...trained],
  };
}

/** The base trains nothing, but its held-out records are those of a training recipe. */
export const anyMethod = { method: "lora", rank: 1, alpha: SCALING } as const;

export interface InputFolders {
  readonly modelDir: string;
  /** Data folder. */
  readonly root: string;
  readonly trainingFile: string;
  readonly prompt: string;
  readonly evaluation: EvaluationRecipe;
}

/** What cells are trained on and asked, and the hashes of it all. */
export function readInputs({ modelDir, root, trainingFile, prompt, evaluation }: InputFolders) {
  const { tasks, limit } = evaluation;
  const sets = tasks.map((name) => ({
    name,
    path: taskFile(root, { name }),
    records: readTaskRecords(root, { name }, limit ?? undefined),
  }));
  const inputs: CellRecipe["inputs"] = {
    ...modelInputs(modelDir, prompt),
    training: fileHash(trainingFile),
    tests: Object.fromEntries(sets.map(({ name, path }) => [name, path === null ? null : fileHash(path)])),
  };
  return {
    inputs,
    trainingRecords: readInstructionRecords(trainingFile),
    tests: new Map(sets.flatMap(({ name, records }) => (records ? [[name, records] as const] : []))),
    hashes: {
      [basename(trainingFile)]: inputs.training,
      ...Object.fromEntries(
        Object.entries(inputs.tests).flatMap(([name, hash]) => (hash ? [[`${name}/test.json`, hash]] : [])),
      ),
    },
    missing: sets.filter(({ records }) => records === null).map(({ name }) => name),
  };
}

export function modelFolder(
  preset: Pick<Preset, "name" | "model">,
  flags: Pick<StudyFlags, "model">,
): string {
  if (flags.model !== null) return resolve(flags.model);
  if (preset.name === "tiny") return TINY_MODEL;
  throw new InputError(
    `--model is missing: the preset ${preset.name} needs the folder of a model (${preset.model}). ` +
      "bun run scripts/download.ts fetches one.",
  );
}

export function dataFolder(
  table: Pick<TaskTable, "writeTinyData">,
  preset: Pick<Preset, "name" | "trainingFile">,
  flags: Pick<StudyFlags, "data" | "out">,
): string {
  if (flags.data !== null) {
    if (existsSync(flags.data)) return resolve(flags.data);
    throw new InputError(`--data is ${flags.data}: there is no such folder; expected LLM-Adapters' files.`);
  }
  if (preset.name !== "tiny") {
    throw new InputError(
      `--data is missing: the preset ${preset.name} needs a folder with ft-training_set/${preset.trainingFile} and ` +
        "dataset/<task>/test.json. bun run scripts/download.ts fetches the LLM-Adapters repository.",
    );
  }
  const root = join(flags.out, ".work", "data");
  table.writeTinyData(root);
  return root;
}

export function trainingFileIn(
  root: string,
  { trainingFile, name }: Pick<Preset, "trainingFile" | "name">,
): string {
  const folders = ["ft-training_set", "", "llm-adapters/ft-training_set", "LLM-Adapters/ft-training_set"];
  const paths = folders.map((folder) => join(root, folder, trainingFile));
  const found = paths.find((path) => existsSync(path));
  if (found) return found;
  throw new InputError(
    `${root}: there is no ${trainingFile}, which the preset ${name} trains on; expected it at ${paths[0]}.`,
  );
}

/** Each once; a task of another table has no column here. */
function chosenTasks({ number, tasks }: TaskTable, names: readonly string[]): string[] {
  const chosen = tasksNamed(names.join(","));
  const foreign = chosen.filter((task) => !tasks.includes(task)).map(({ name }) => name);
  if (foreign.length === 0) return chosen.map(({ name }) => name);
  throw new InputError(
    `--tasks names ${foreign.join(", ")}, which Table ${number} does not have; expected names out of ` +
      `${tasks.map(({ name }) => name).join(", ")}. scripts/evaluate.ts asks the others.`,
  );
}

/** --methods picks out of the preset's groups or adds to its ranks; --ranks gives every method the same ranks. */
export function chosenGroups(
  preset: Pick<Preset, "groups">,
  flags: Pick<StudyFlags, "methods" | "ranks">,
): Group[] {
  const methods = flags.methods && [...new Set(flags.methods.map((name) => methodNamed(name).name))];
  if (flags.ranks) return [{ methods: methods ?? [...tableMethods], ranks: flags.ranks }];
  if (!methods) return [...preset.groups];
  const known = preset.groups.map(({ methods: all, ranks }) => ({
    methods: methods.filter((method) => all.includes(method)),
    ranks,
  }));
  const added = methods.filter((method) => !preset.groups.some((group) => group.methods.includes(method)));
  return [...known, { methods: added, ranks: preset.groups[0]!.ranks }].filter((g) => g.methods.length > 0);
}

/** Every method at every rank; full fine-tuning, which has none, once. */
export function entries(groups: readonly Group[]): { method: MethodName; rank: number }[] {
  return groups.flatMap(({ methods, ranks }) =>
    ranks.flatMap((rank, i) =>
      methods.filter((method) => method !== "full" || i === 0).map((method) => ({ method, rank })),
    ),
  );
}

/** SHA-256 of what every recipe takes from a model folder, and of the prompt's form. */
export function modelInputs(
  modelDir: string,
  prompt: string,
): Pick<CellRecipe["inputs"], "base" | "tokenizer" | "prompt"> {
  return {
    base: fingerprintModel(modelDir),
    tokenizer: loadTokenizer(modelDir).sha256,
    prompt: promptHash(promptNamed(prompt)),
  };
}

/** A preset's training with what the command line changes of it. */
export function trainingWith<T extends Pick<TrainRecipe, "steps" | "warmup" | "learningRate" | "compute">>(
  training: T,
  flags: Pick<StudyFlags, "steps"> & Partial<Pick<StudyFlags, "learningRate" | "compute">>,
): T {
  const steps = flags.steps ?? training.steps;
  return {
    ...training,
    steps,
    // A short run must still reach its learning rate.
    warmup: steps === null ? training.warmup : Math.min(training.warmup, Math.floor(steps / 4)),
    learningRate: flags.learningRate ?? training.learningRate,
    compute: flags.compute ?? training.compute,
  };
}

function evaluationOf(preset: Preset, flags: StudyFlags, tasks: readonly string[]): EvaluationRecipe {
  const { evaluation } = preset;
  return {
    ...evaluation,
    tasks,
    limit: flags.limit ?? evaluation.limit,
    beams: flags.beams ?? evaluation.beams,
  };
}

/** A folder's name as a part of file names. */
export function slug(name: string): string {
  const text = name.toLowerCase().replace(/[^a-z0-9.]+/g, "-");
  return text.replace(/^-|-$/g, "") || "model";
}
