/** Merged models for Figure 2: those that are named, or some trained and merged here for the purpose. */
import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import type { MethodName } from "../src/adapters/adapter.ts";
import { methodNamed } from "../src/adapters/registry.ts";
import { readInstructionRecords } from "../src/data/records.ts";
import { readJsonObject, withTemporaryFolder } from "../src/formats/files.ts";
import { openModelTensors, type TensorEntry } from "../src/formats/safetensors.ts";
import { mergeModel, RECORD_FILE } from "../src/merging/merge.ts";
import type { Device } from "../src/native/device.ts";
import { fineTune } from "../src/training/fine-tune.ts";
import { paperRecipe } from "../src/training/recipe.ts";
import { SCALING } from "./recipes/table3.ts";

/** A merged model and what its merge's record says of it. */
export interface MergedModel {
  readonly dir: string;
  readonly name: string;
  /** null where the folder has no record of ours. */
  readonly method: MethodName | null;
  readonly rank: number | null;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

export function openMerged(dir: string): MergedModel {
  const path = join(dir, RECORD_FILE);
  const record = existsSync(path) ? readJsonObject(path) : {};
  const [adapter] = Array.isArray(record.adapters)
    ? (record.adapters as { method?: string; rank?: number }[])
    : [];
  return {
    dir,
    name: basename(resolve(dir)),
    method: adapter?.method === undefined ? null : methodNamed(adapter.method).name,
    rank: adapter?.rank ?? null,
    tensors: openModelTensors(dir),
  };
}

export interface TrainedMerge {
  readonly device: Device;
  readonly modelDir: string;
  readonly dataFile: string;
  readonly methods: readonly MethodName[];
  readonly rank: number;
  readonly steps: number;
  readonly onStep: (method: MethodName, step: number, of: number) => void;
}

const RATE = 2e-3;
const CUTOFF = 256;

/** Trains and merges every method in a temporary folder, calls `use` with the merged models, and removes it. */
export async function withTrainedMerges<T>(
  options: TrainedMerge,
  use: (merged: readonly MergedModel[]) => T,
): Promise<T> {
  const { device, modelDir, dataFile, methods, rank, steps, onStep } = options;
  const records = readInstructionRecords(dataFile);
  return withTemporaryFolder(async (work) => {
    const dirs: string[] = [];
    for (const method of methods) {
      const run = await fineTune({
        device,
        modelDir,
        dataFile,
        records,
        recipe: {
          ...paperRecipe,
          method,
          rank,
          alpha: SCALING * rank,
          steps,
          warmup: Math.floor(steps / 4),
          learningRate: RATE,
          cutoff: CUTOFF,
          valSize: 0,
        },
        out: join(work, "runs", method),
        resume: false,
        saveAs: "native",
        onStep: ({ step }, of) => onStep(method, step, of),
      });
      run.close();
      const out = join(work, "merged", method);
      const adapters = [{ dir: join(work, "runs", method), weight: 1 }];
      // The files themselves are what is looked at below; the proof of a merge would load the model twice more.
      const how = { keepOriginals: false, allowOverlap: false, verify: false };
      await mergeModel({ device, modelDir, adapters, out, ...how });
      dirs.push(out);
    }
    return use(dirs.map(openMerged));
  });
}
