/** From preset and flags to cells: which tasks, which methods, which draws. Everything wrong with them is found here. */
import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { MethodName } from "../src/adapters/adapter.ts";
import { checkRank, methodNamed } from "../src/adapters/registry.ts";
import { InputError } from "../src/errors.ts";
import { tasksNamed } from "../src/evaluation/tasks/registry.ts";
import { type LlamaConfig, readLlamaConfig } from "../src/formats/hf-config.ts";
import { targetedLinears } from "../src/model/shapes.ts";
import type { Device } from "../src/native/device.ts";
import { fileHash } from "../src/reporting/manifest.ts";
import { cellPlace } from "./cell-file.ts";
import { type AdapterPlan, type MultiPlan, type MultiWorld, PROMPT } from "./multi-sbora-cell.ts";
import { type TaskData, taskData, writeTinyTasks } from "./multi-sbora-data.ts";
import { type Draw, type MultiPreset, type MultiRecipe, SEED_STRIDE } from "./multi-sbora-recipe.ts";
import { methodTitle } from "./parameters.ts";
import { SCALING } from "./recipes/table3.ts";
import { modelFolder, modelInputs, slug, trainingWith } from "./study.ts";

/** What the command line may change; null: as the preset says. */
export interface MultiFlags {
  readonly model: string | null;
  readonly data: string | null;
  readonly methods: readonly string[] | null;
  readonly tasks: readonly string[] | null;
  readonly rank: number | null;
  readonly seeds: readonly number[] | null;
  readonly steps: number | null;
  readonly learningRate: number | null;
  readonly limit: number | null;
  /** Whether SBoRA is trained with indices drawn independently too. */
  readonly independent: boolean;
  readonly out: string;
}

/** A method with its way of drawing indices: a row of the table. */
export interface Variant {
  readonly method: MethodName;
  readonly draw: Draw | null;
  readonly title: string;
}

/** What one variant is judged by, for one seed. */
export interface VariantPlans {
  readonly variant: Variant;
  readonly seed: number;
  /** By task. */
  readonly alone: ReadonlyMap<string, MultiPlan>;
  readonly merged: MultiPlan;
}

export interface MultiStudy extends MultiWorld {
  readonly preset: MultiPreset;
  readonly taskNames: readonly string[];
  readonly rank: number;
  readonly seeds: readonly number[];
  readonly variants: readonly Variant[];
  /** By seed. */
  readonly base: ReadonlyMap<number, MultiPlan>;
  readonly plans: readonly VariantPlans[];
  /** Every cell once, in the order they run. */
  readonly cells: readonly MultiPlan[];
}

export function openMultiStudy(device: Device, preset: MultiPreset, flags: MultiFlags): MultiStudy {
  const modelDir = modelFolder(preset, flags);
  const config = readLlamaConfig(modelDir);
  const taskNames = chosenTasks(preset, flags);
  const rank = flags.rank ?? preset.rank;
  const variants = variantsOf(preset, flags);
  checkRanks(config, preset, variants, rank, taskNames.length);
  const limit = flags.limit ?? preset.evaluation.limit;
  const data = taskData(dataFolder(preset, flags), taskNames, limit);
  const modelName = flags.model === null ? preset.model : slug(basename(modelDir));
  const seeds = flags.seeds ?? preset.seeds;
  const planner = plannerOf(preset, flags, modelDir, modelName, data);
  const base = new Map(seeds.map((seed) => [seed, planner.base(seed)]));
  const plans = seeds.flatMap((seed) => variants.map((variant) => planner.variant(variant, seed)));
  const cells = seeds.flatMap((seed) => [
    base.get(seed)!,
    ...plans.filter((own) => own.seed === seed).flatMap(({ alone, merged }) => [...alone.values(), merged]),
  ]);
  return {
    device,
    preset,
    modelDir,
    modelName,
    tasks: new Map(data.map((task) => [task.name, task])),
    hashes: hashesOf(data),
    taskNames,
    rank,
    seeds,
    variants,
    base,
    plans,
    // The first task's adapter avoids nothing: both draws share its cell.
    cells: [...new Map(cells.map((plan) => [plan.place.name, plan])).values()],
  };
}

/** Files of equal name (test.json, train.json) by the folder they lie in. */
function hashesOf(data: readonly TaskData[]): Record<string, string> {
  const named = (path: string): [string, string] => [
    `${basename(dirname(path))}/${basename(path)}`,
    fileHash(path),
  ];
  return Object.fromEntries(
    data.flatMap(({ trainingFile, testFile }) => [named(trainingFile), named(testFile)]),
  );
}

function plannerOf(
  preset: MultiPreset,
  flags: MultiFlags,
  modelDir: string,
  modelName: string,
  data: readonly TaskData[],
): { base: (seed: number) => MultiPlan; variant: (variant: Variant, seed: number) => VariantPlans } {
  const training = trainingWith(preset.training, flags);
  const rank = flags.rank ?? preset.rank;
  const seedOf = (seed: number, position: number): number => seed + SEED_STRIDE * position;
  const inputs: MultiRecipe["inputs"] = {
    ...modelInputs(modelDir, PROMPT),
    tasks: Object.fromEntries(
      data.map(({ name, trainingFile, training: { length }, testFile }) => [
        name,
        { training: fileHash(trainingFile), trained: length, test: fileHash(testFile) },
      ]),
    ),
  };
  const plan = (
    name: string,
    seed: number,
    draw: Draw | null,
    tasks: readonly string[],
    adapters: readonly AdapterPlan[],
  ): MultiPlan => ({
    place: cellPlace(flags.out, `${modelName}-${name}`),
    adapters,
    recipe: {
      experiment: "multi-sbora",
      preset: preset.name,
      draw,
      adapters: adapters.map(({ recipe }) => recipe),
      evaluation: { ...preset.evaluation, tasks, limit: flags.limit ?? preset.evaluation.limit },
      heldOut: Object.fromEntries(
        tasks.map((task) => {
          const position = data.findIndex(({ name: own }) => own === task);
          return [task, { records: training.valSize, seed: seedOf(seed, position) }];
        }),
      ),
      cutoff: training.cutoff,
      compute: training.compute,
      inputs: { ...inputs, tasks: Object.fromEntries(tasks.map((task) => [task, inputs.tasks[task]!])) },
    },
  });
  const names = data.map(({ name }) => name);
  return {
    base: (seed) => plan(`base-r0-s${seed}`, seed, null, names, []),
    variant(variant, seed) {
      const { method, draw } = variant;
      const adapters: AdapterPlan[] = [];
      const alone = new Map<string, MultiPlan>();
      names.forEach((task, position) => {
        const avoids = draw === "disjoint" ? [...adapters] : [];
        // What does not avoid anything is the same adapter under both draws.
        const own = draw === "independent" && position > 0 ? `${method}-independent` : method;
        const name = `${own}-r${rank}-s${seed}-${task.toLowerCase()}`;
        const recipe = { ...training, method, rank, alpha: SCALING * rank, seed: seedOf(seed, position) };
        const adapter: AdapterPlan = {
          dir: join(cellPlace(flags.out, `${modelName}-${name}`).work, "train"),
          avoids,
          recipe: {
            task,
            training: recipe,
            avoids: avoids.map((other) => ({ task: other.recipe.task, seed: other.recipe.training.seed })),
          },
        };
        adapters.push(adapter);
        alone.set(task, plan(name, seed, position > 0 ? draw : null, [task], [adapter]));
      });
      const name = draw === "independent" ? `${method}-independent` : method;
      const merged = plan(`${name}-r${rank}-s${seed}-merged`, seed, draw, names, adapters);
      return { variant, seed, alone, merged };
    },
  };
}

function chosenTasks(preset: MultiPreset, flags: MultiFlags): string[] {
  const names =
    flags.tasks === null ? preset.tasks : tasksNamed(flags.tasks.join(",")).map(({ name }) => name);
  if (names.length >= 2) return [...names];
  throw new InputError(`--tasks names ${names.join(", ")} alone; expected at least two tasks to merge.`);
}

/** A row for every method, two for SBoRA where both draws are wanted. */
function variantsOf(preset: MultiPreset, flags: MultiFlags): Variant[] {
  const methods = [...new Set((flags.methods ?? preset.methods).map((name) => methodNamed(name).name))];
  return methods.flatMap((method): Variant[] => {
    const title = methodTitle(method);
    if (method === "dora" || method === "full") {
      const why =
        method === "dora"
          ? "DoRA rescales whole rows, so several cannot be merged"
          : "full fine-tuning leaves no adapter to merge";
      throw new InputError(
        `--methods names ${method}: ${why}; expected sbora-fa, sbora-fb, lora, oa or lora-fa.`,
      );
    }
    if (method !== "sbora-fa" && method !== "sbora-fb")
      return [{ method, draw: null, title: `${title}, added` }];
    const disjoint: Variant = { method, draw: "disjoint", title: `${title}, disjoint` };
    const independent: Variant = { method, draw: "independent", title: `${title}, independent` };
    return flags.independent ? [disjoint, independent] : [disjoint];
  });
}

/** @throws InputError where a method cannot have this rank, or disjoint indices do not fit into the narrowest matrix */
function checkRanks(
  config: LlamaConfig,
  preset: MultiPreset,
  variants: readonly Variant[],
  rank: number,
  tasks: number,
): void {
  for (const shape of targetedLinears(config, preset.training.targets)) {
    for (const { method, draw } of variants) {
      checkRank(methodNamed(method), rank, shape);
      const free = method === "sbora-fa" ? shape.in : shape.out;
      if (draw !== "disjoint" || tasks * rank <= free) continue;
      throw new InputError(
        `--rank ${rank} for ${tasks} tasks needs ${tasks * rank} disjoint ${method === "sbora-fa" ? "columns" : "rows"}, but ` +
          `${shape.name} has ${free}; expected a rank of at most ${Math.floor(free / tasks)}, or fewer --tasks.`,
      );
    }
  }
}

function dataFolder(preset: MultiPreset, flags: MultiFlags): string {
  if (flags.data !== null) {
    if (existsSync(flags.data)) return resolve(flags.data);
    throw new InputError(`--data is ${flags.data}: there is no such folder; expected LLM-Adapters' files.`);
  }
  if (preset.name !== "tiny") {
    throw new InputError(
      `--data is missing: the preset ${preset.name} needs a folder with dataset/<task>/test.json and, for training, ` +
        "dataset/<task>/train.json or a mix in ft-training_set. bun run scripts/download.ts fetches the LLM-Adapters repository.",
    );
  }
  const root = join(flags.out, ".work", "data");
  writeTinyTasks(root);
  return root;
}
