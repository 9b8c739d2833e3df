/** From preset and flags to the cells of Table 5. Everything wrong with model, data and flags is found here. */
import { basename } from "node:path";
import type { Compute } from "../src/adapters/adapter.ts";
import type { DoraNorm } from "../src/adapters/dora.ts";
import { checkRank, methodNamed } from "../src/adapters/registry.ts";
import type { MmluSet, MmluSplit } from "../src/data/mmlu.ts";
import { InputError } from "../src/errors.ts";
import { letterIds, type Overlong } from "../src/evaluation/mmlu.ts";
import { type LlamaConfig, readLlamaConfig } from "../src/formats/hf-config.ts";
import { isNf4Folder } from "../src/model/nf4.ts";
import { targetedLinears } from "../src/model/shapes.ts";
import type { Device } from "../src/native/device.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";
import type { TrainRecipe } from "../src/training/recipe.ts";
import { type CellPlace, cellPlace } from "./cell-file.ts";
import type { MmluCell, MmluPlan, MmluRecipe } from "./mmlu-cell-file.ts";
import { mmluFolder, type OpenedMmlu, type OpenedSet, openMmlu, openSets } from "./mmlu-data.ts";
import type { Group } from "./recipes/table3.ts";
import {
  ALPHA,
  type MmluPreset,
  mmluPresets,
  type SetName,
  setNames,
  type TrainingSet,
} from "./recipes/table5.ts";
import { checkInputs, type RerunFlags } from "./rerun-cell.ts";
import { chosenGroups, entries, modelFolder, modelInputs, slug, trainingWith } from "./study.ts";

/** What the command line may change; null: as the preset says. */
export interface MmluFlags {
  readonly model: string | null;
  readonly data: string | null;
  readonly sets: readonly string[] | null;
  readonly methods: readonly string[] | null;
  readonly ranks: readonly number[] | null;
  readonly seeds: readonly number[] | null;
  readonly steps: number | null;
  readonly learningRate: number | null;
  readonly limit: number | null;
  readonly subjects: readonly string[] | null;
  readonly overlong: Overlong | null;
  readonly doraNorm: DoraNorm | null;
  readonly compute: Compute | null;
  readonly out: string;
}

/** What its cells share. */
export interface MmluStudy {
  readonly device: Device;
  readonly preset: MmluPreset;
  readonly modelDir: string;
  readonly modelName: string;
  readonly sets: ReadonlyMap<SetName, OpenedSet>;
  readonly mmlu: ReadonlyMap<MmluSplit, MmluSet>;
  /** SHA-256 of the data, by name. */
  readonly hashes: Readonly<Record<string, string>>;
  /** Set by set and seed by seed: the base, then the methods in the paper's order. */
  readonly cells: readonly MmluPlan[];
  /** Sets and splits that are not there. */
  readonly missing: readonly string[];
  /** What is to be said about the data. */
  readonly remarks: readonly string[];
}

export function openMmluStudy(device: Device, preset: MmluPreset, flags: MmluFlags): MmluStudy {
  const modelDir = modelFolder(preset, flags);
  const config = readLlamaConfig(modelDir);
  // A folder that is 4-bit already must be so in our blocks: foreign ones are refused before anything is read.
  const stored = isNf4Folder(modelDir);
  const groups = chosenGroups(preset, flags);
  checkGroups(groups, config, preset);
  const evaluation: MmluRecipe["evaluation"] = {
    ...preset.evaluation,
    limit: flags.limit ?? preset.evaluation.limit,
    maxTokens: Math.min(preset.evaluation.maxTokens, config.maxPositions),
    overlong: flags.overlong ?? preset.evaluation.overlong,
    subjects: flags.subjects,
    adapter: "last",
  };
  // What it cannot be asked by, it need not be trained for.
  letterIds(loadTokenizer(modelDir), modelDir);
  const root = mmluFolder(preset, flags.data, flags.out);
  const wanted = chosenSets(preset, flags.sets);
  const opened = openSets(root, wanted);
  const mmlu = openMmlu(root, evaluation);
  const modelName = flags.model === null ? preset.model : slug(basename(modelDir));
  const seeds = flags.seeds ?? preset.seeds;
  const cells = opened.flatMap((one) => {
    const { set } = one;
    const training = trainingWith(set.training, flags);
    const inputs = inputsOf(modelDir, training.prompt, one, mmlu);
    const plan = (method: string, own: TrainRecipe, trained: boolean): MmluPlan => ({
      place: cellPlace(
        flags.out,
        `${modelName}-${set.name}-${method}-r${trained ? own.rank : 0}-s${own.seed}`,
      ),
      training: own,
      recipe: {
        table: "table5",
        preset: preset.name,
        set: set.name,
        sample: set.sample,
        training: trained ? own : null,
        base: { quantize: preset.quantize, compute: own.compute },
        evaluation,
        heldOut: { records: own.valSize, seed: own.seed, ...training.lengths },
        inputs,
      },
    });
    const norm = (flags.doraNorm ?? preset.doraNorm) === "unscaled" ? { doraNorm: "unscaled" as const } : {};
    const trained = seeds.flatMap((seed) =>
      entries(groups).map(({ method, rank }) => {
        const own = { ...training, method, rank, alpha: ALPHA, seed, quantize: preset.quantize };
        return plan(method, method === "dora" ? { ...own, ...norm } : own, true);
      }),
    );
    return [plan("base", baseTraining(training, preset, seeds[0]!), false), ...trained];
  });
  return {
    device,
    preset,
    modelDir,
    modelName,
    ...sharedOf(opened, mmlu),
    cells,
    missing: [
      ...wanted.filter((set) => !opened.some((one) => one.set === set)).map(({ name }) => name),
      ...evaluation.splits.filter((split) => !mmlu.splits.has(split)).map((split) => `MMLU ${split}`),
    ],
    remarks: [
      ...opened.flatMap(({ remark }) => remark ?? []),
      ...(stored
        ? [`The model folder is 4-bit already: its own codes and scales were taken, not ${preset.quantize}.`]
        : []),
    ],
  };
}

/**
 * A cell once more, from what its file says: the recipe is the file's, not what today's preset asks for.
 * @throws InputError when model or data are not those that the cell was made of
 */
export function reopenMmluCell(
  device: Device,
  { recipe, manifest }: MmluCell,
  place: CellPlace,
  flags: RerunFlags,
): MmluStudy {
  const preset = mmluPresets[recipe.preset];
  const { evaluation, heldOut, base, training } = recipe;
  const { seed, records: valSize, source, target } = heldOut;
  const known = preset.sets.find(({ name }) => name === recipe.set)!;
  const changes = { valSize, lengths: { source, target }, cutoff: source + target, compute: base.compute };
  const set: TrainingSet = {
    ...known,
    sample: recipe.sample,
    training: { ...known.training, ...changes },
  };
  const modelDir = modelFolder(preset, flags);
  const root = mmluFolder(preset, flags.data, flags.out);
  const opened = openSets(root, [set]);
  const mmlu = openMmlu(root, evaluation);
  const prompt = (training ?? set.training).prompt;
  checkInputs(place.name, recipe.inputs, inputsOf(modelDir, prompt, opened[0]!, mmlu));
  const plan = { place, recipe, training: training ?? baseTraining(set.training, base, seed) };
  return {
    ...{ device, preset, modelDir, modelName: manifest.model.name },
    ...sharedOf(opened, mmlu),
    ...{ cells: [plan], missing: [], remarks: [] },
  };
}

/** The base trains nothing, but its held-out records are those of a training recipe. */
function baseTraining(
  training: TrainingSet["training"],
  { quantize }: Pick<MmluPreset, "quantize">,
  seed: number,
): TrainRecipe {
  return { ...training, method: "lora", rank: 1, alpha: ALPHA, seed, quantize };
}

function inputsOf(
  modelDir: string,
  prompt: string,
  { hash }: OpenedSet,
  { hashes }: OpenedMmlu,
): MmluRecipe["inputs"] {
  return { ...modelInputs(modelDir, prompt), training: hash, mmlu: hashes };
}

function sharedOf(
  opened: readonly OpenedSet[],
  { splits, hashes }: OpenedMmlu,
): Pick<MmluStudy, "sets" | "mmlu" | "hashes"> {
  return {
    sets: new Map(opened.map((one) => [one.set.name, one])),
    mmlu: splits,
    hashes: {
      ...Object.fromEntries(opened.map(({ path, hash }) => [basename(path), hash])),
      ...Object.fromEntries([...splits.keys()].map((split) => [`mmlu/${split}`, hashes[split]!])),
    },
  };
}

function checkGroups(groups: readonly Group[], config: LlamaConfig, preset: MmluPreset): void {
  const shapes = targetedLinears(config, preset.sets[0]!.training.targets);
  for (const { method, rank } of entries(groups)) {
    if (method === "full") {
      throw new InputError(
        "--methods names full, which trains every weight; those of a 4-bit base cannot be trained.",
      );
    }
    for (const shape of shapes) checkRank(methodNamed(method), rank, shape);
  }
}

function chosenSets(preset: MmluPreset, names: readonly string[] | null): MmluPreset["sets"] {
  if (!names) return preset.sets;
  const unknown = names.filter((name) => !setNames.some((known) => known === name));
  if (unknown.length === 0) return preset.sets.filter(({ name }) => names.includes(name));
  throw new InputError(
    `--train-on names ${unknown.join(", ")}; expected names out of ${setNames.join(", ")}.`,
  );
}
