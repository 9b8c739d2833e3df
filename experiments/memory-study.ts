/** Figures 3 and 4 as runs: from preset and flags to curves, each written once to a file of its own (as settled 1 has it). */
import { basename, join } from "node:path";
import type { Compute, MethodName } from "../src/adapters/adapter.ts";
import { checkRank, methodNamed } from "../src/adapters/registry.ts";
import { withTemporaryFolder, writeTextFile } from "../src/formats/files.ts";
import { readLlamaConfig } from "../src/formats/hf-config.ts";
import { targetedLinears } from "../src/model/shapes.ts";
import { commandLine, fileHash, type Manifest, makeManifest } from "../src/reporting/manifest.ts";
import type { MemoryForecast } from "../src/training/forecast.ts";
import { recipeHash, type TrainRecipe } from "../src/training/recipe.ts";
import { makeFolder, readCell, SCHEMA_VERSION } from "./cell-file.ts";
import { curveMethods, curveRanks, type MemoryFigure, type MemoryPreset } from "./memory-recipe.ts";
import { type MemoryRun, sampleRun } from "./memory-sample.ts";
import { type PresetName, SCALING } from "./recipes/table3.ts";
import { dataFolder, modelFolder, modelInputs, slug, trainingFileIn, trainingWith } from "./study.ts";
import { writeTinySums } from "./tiny/data.ts";

/** Everything that decides what a curve is of. */
export interface CurveRecipe {
  readonly figure: MemoryFigure["name"];
  readonly preset: PresetName;
  readonly training: TrainRecipe;
  readonly maxTokens: number;
  readonly inputs: {
    readonly base: string;
    readonly tokenizer: string;
    readonly prompt: string;
    readonly training: string;
  };
}

/** The file of one curve. All that was measured stands under `timing`: no two runs measure the same. */
export interface CurveFile {
  readonly schemaVersion: number;
  readonly recipe: CurveRecipe;
  readonly recipeHash: string;
  readonly manifest: Omit<Manifest, "command" | "threads"> & {
    readonly parameters: number;
    readonly steps: number;
    /** Bytes that the plan foresees (`train --dry-run`). */
    readonly forecast: Omit<MemoryForecast, "process" | "total">;
  };
  readonly timing: Omit<MemoryRun, "start"> & {
    readonly command: string;
    readonly threads: number;
    /** Bun, program and records before the model was loaded, and all that was foreseen with it; bytes. */
    readonly process: number;
    readonly foreseen: number;
    readonly finished: string;
  };
}

export interface MemoryFlags {
  readonly model: string | null;
  readonly data: string | null;
  readonly methods: readonly string[] | null;
  readonly ranks: readonly number[] | null;
  readonly seed: number | null;
  readonly steps: number | null;
  readonly compute: Compute | null;
  readonly threads: number | null;
  readonly out: string;
}

export interface CurvePlan {
  readonly name: string;
  readonly json: string;
  readonly recipe: CurveRecipe;
}

export interface MemoryStudy {
  readonly figure: MemoryFigure;
  readonly preset: MemoryPreset;
  readonly modelDir: string;
  readonly modelName: string;
  readonly dataFile: string;
  readonly threads: number | null;
  /** Rank by rank, left panel first. */
  readonly curves: readonly CurvePlan[];
}

export function openMemoryStudy(figure: MemoryFigure, preset: MemoryPreset, flags: MemoryFlags): MemoryStudy {
  const modelDir = modelFolder(preset, flags);
  const config = readLlamaConfig(modelDir);
  const methods = (flags.methods ?? curveMethods).map((name) => methodNamed(name).name);
  const ranks = flags.ranks ?? curveRanks;
  for (const shape of targetedLinears(config, preset.training.targets)) {
    for (const method of methods) for (const rank of ranks) checkRank(methodNamed(method), rank, shape);
  }
  const root = dataFolder({ writeTinyData: writeTinySums }, preset, flags);
  const dataFile = trainingFileIn(root, preset);
  const modelName = flags.model === null ? preset.model : slug(basename(modelDir));
  const inputs: CurveRecipe["inputs"] = {
    ...modelInputs(modelDir, preset.training.prompt),
    training: fileHash(dataFile),
  };
  const training = trainingWith(preset.training, flags);
  const plan = (method: MethodName, rank: number): CurvePlan => {
    const seed = flags.seed ?? training.seed;
    const recipe: TrainRecipe = { ...training, seed, method, rank, alpha: SCALING * rank };
    const name = `${modelName}-${method}-r${rank}-s${seed}`;
    const curve = { figure: figure.name, preset: preset.name, training: recipe };
    return {
      name,
      json: join(flags.out, `${name}.json`),
      recipe: { ...curve, maxTokens: preset.maxTokens, inputs },
    };
  };
  return {
    figure,
    preset,
    modelDir,
    modelName,
    dataFile,
    threads: flags.threads,
    curves: [...new Set(ranks)].flatMap((rank) => [...new Set(methods)].map((method) => plan(method, rank))),
  };
}

/** The finished curve, or null where there is none. @throws InputError when the file belongs to another recipe */
export function readCurve(plan: CurvePlan): CurveFile | null {
  return readCell<CurveFile>(plan, plan.recipe, "curve");
}

export interface CurveWatch {
  readonly onStep: (step: number, of: number) => void;
  readonly shouldStop: () => boolean;
}

/** The curve, measured in a process of its own where its file is not there yet; null when asked to stop. */
export async function runCurve(
  study: MemoryStudy,
  plan: CurvePlan,
  watch: CurveWatch,
): Promise<CurveFile | null> {
  const finished = readCurve(plan);
  if (finished) return finished;
  const { modelDir, modelName, dataFile, threads, preset } = study;
  const { recipe } = plan;
  return withTemporaryFolder(async (work) => {
    const request = { modelDir, dataFile, recipe: recipe.training, maxTokens: recipe.maxTokens, threads };
    const run = await sampleRun(
      { ...request, out: join(work, "train") },
      { ...watch, period: preset.period },
    );
    if (!run) return null;
    const { start, ...measured } = run;
    const { process, total, ...forecast } = start.forecast;
    const data = { [basename(dataFile)]: recipe.inputs.training };
    const model = { name: modelName, fingerprint: recipe.inputs.base };
    const { command: _, threads: used, ...made } = makeManifest(start.device, model, data);
    const curve: CurveFile = {
      schemaVersion: SCHEMA_VERSION,
      recipe,
      recipeHash: recipeHash(recipe),
      manifest: { ...made, parameters: start.parameters, steps: start.steps, forecast },
      timing: {
        command: commandLine(),
        threads: used,
        process,
        foreseen: total,
        finished: new Date().toISOString(),
        ...measured,
      },
    };
    makeFolder(join(plan.json, ".."));
    writeTextFile(plan.json, `${JSON.stringify(curve)}\n`);
    return curve;
  });
}
