/** The tiny world as a data folder: the layout of the LLM-Adapters checkout, so that nothing downstream knows the difference. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { InstructionRecord } from "../../src/data/records.ts";
import { writeTextFile } from "../../src/formats/files.ts";
import { makeFolder } from "../../src/formats/model-folder.ts";
import { tinySumFiles } from "./arithmetic.ts";
import { tinyMix, tinyRecords, tinyTasks } from "./tasks.ts";
import { makeWorld } from "./world.ts";

/** Seed of the world and of its texts. The embedded model knows this world and no other. */
export const WORLD_SEED = 1;
export const TINY_MODEL = join(import.meta.dir, "model");
/** Training records and test records a task. */
export const TRAIN_RECORDS = 360;
export const TEST_RECORDS = 120;
/** Sums are learned from more records than labels. */
const TRAIN_SUMS = 900;

/** Files by their path below the data folder. */
export function tinyFiles(): Map<string, InstructionRecord[]> {
  const world = makeWorld(WORLD_SEED);
  const files = new Map([["ft-training_set/tiny_mix.json", tinyMix(world, TRAIN_RECORDS, WORLD_SEED)]]);
  for (const task of tinyTasks) {
    files.set(`dataset/${task.name}/test.json`, tinyRecords(task, world, "test", TEST_RECORDS, WORLD_SEED));
  }
  return files;
}

/** Table 3's files; those that are there and equal stay. */
export function writeTinyData(root: string): void {
  writeFiles(root, tinyFiles());
}

/** Table 4's. */
export function writeTinySums(root: string): void {
  writeFiles(root, tinySumFiles(TRAIN_SUMS, TEST_RECORDS, WORLD_SEED));
}

function writeFiles(root: string, files: ReadonlyMap<string, readonly InstructionRecord[]>): void {
  for (const [path, records] of files) {
    const target = join(root, path);
    const text = `${JSON.stringify(records, null, 1)}\n`;
    if (existsSync(target) && readFileSync(target, "utf8") === text) continue;
    makeFolder(dirname(target));
    writeTextFile(target, text);
  }
}
