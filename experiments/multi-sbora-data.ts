/** Records to train each task apart: the task's own training file where there is one, else its part of a mix. */
import { existsSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type InstructionRecord, readInstructionRecords } from "../src/data/records.ts";
import { InputError } from "../src/errors.ts";
import { type Task, taskFile } from "../src/evaluation/task.ts";
import { taskNamed } from "../src/evaluation/tasks/registry.ts";
import { writeTextFile } from "../src/formats/files.ts";
import { makeFolder } from "./cell-file.ts";
import { TRAIN_RECORDS, WORLD_SEED, writeTinyData } from "./tiny/data.ts";
import { tinyRecords, tinyTasks } from "./tiny/tasks.ts";
import { makeWorld } from "./tiny/world.ts";

export interface TaskData {
  readonly name: string;
  readonly trainingFile: string;
  readonly training: readonly InstructionRecord[];
  readonly testFile: string;
  /** Cut to the limit. */
  readonly tests: readonly InstructionRecord[];
  /** Where `training` is a part of a mix: which part. */
  readonly part: string | null;
}

/** Mixes of the LLM-Adapters repository and the subsets of them that are around, the complete one first. */
const MIXES: Readonly<Record<Task["suite"], readonly string[]>> = {
  commonsense: ["commonsense_170k.json", "commonsense_18k.json"],
  arithmetic: ["math_10k.json", "math_8k.json"],
};
const MIX_FOLDERS = ["ft-training_set", "", "llm-adapters/ft-training_set", "LLM-Adapters/ft-training_set"];

/** @throws InputError where a task has no records of its own, or two tasks would train on the same ones */
export function taskData(root: string, names: readonly string[], limit: number | null): TaskData[] {
  const read = readOnce();
  const all = names.map((name): TaskData => {
    const task = taskNamed(name);
    const testFile = taskFile(root, task);
    if (testFile === null)
      throw new InputError(
        `${root}: there is no test set of ${name}; expected ${join(root, "dataset", name, "test.json")}.`,
      );
    const tests = readInstructionRecords(testFile, { requireAnswer: true }).slice(0, limit ?? undefined);
    return { name, testFile, tests, ...trainingPart(root, task, testFile, read) };
  });
  all.forEach((one, i) => {
    const same = all.slice(0, i).find(({ training }) => training[0] === one.training[0]);
    if (!same) return;
    throw new InputError(
      `${one.trainingFile}: ${same.name} and ${one.name} have one layout in this mix, so their records cannot be told apart and ` +
        `both would train on the same. Put their own training files at dataset/<task>/train.json, or choose other --tasks.`,
    );
  });
  return all;
}

type Read = (path: string) => readonly InstructionRecord[];

/** Several tasks may come out of one mix: it is read once, and its records stay the same objects. */
function readOnce(): Read {
  const known = new Map<string, readonly InstructionRecord[]>();
  return (path) => {
    const records = known.get(path) ?? readInstructionRecords(path);
    known.set(path, records);
    return records;
  };
}

function trainingPart(
  root: string,
  task: Task,
  testFile: string,
  read: Read,
): Pick<TaskData, "trainingFile" | "training" | "part"> {
  const own = join(dirname(testFile), "train.json");
  if (existsSync(own)) return { trainingFile: own, training: read(own), part: null };
  const mixes = MIXES[task.suite];
  const paths = mixes.flatMap((mix) => MIX_FOLDERS.map((folder) => join(root, folder, mix)));
  const mix = paths.find((path) => existsSync(path));
  if (!mix)
    throw new InputError(
      `${root}: there are no training records of ${task.name}; expected ${own}, or a mix that holds them (${paths[0]}).`,
    );
  const all = read(mix);
  // Only commonsense tasks have a layout by which a record tells whose it is.
  const mine = task.suite === "commonsense" ? all.filter((record) => task.cloze(record) !== null) : all;
  if (mine.length === 0)
    throw new InputError(
      `${mix}: no record is in the layout of ${task.name}; expected ${own}, or another --tasks.`,
    );
  const part =
    mine.length < all.length
      ? `the ${mine.length} of ${all.length} records of ${basename(mix)} in its layout`
      : `all ${all.length} records of ${basename(mix)}`;
  return { trainingFile: mix, training: mine, part };
}

/** The tiny world's files, and a training file a task beside its test file. */
export function writeTinyTasks(root: string): void {
  writeTinyData(root);
  const world = makeWorld(WORLD_SEED);
  for (const task of tinyTasks) {
    const target = join(root, "dataset", task.name, "train.json");
    const records = tinyRecords(task, world, "train", TRAIN_RECORDS, WORLD_SEED);
    const text = `${JSON.stringify(records, null, 1)}\n`;
    if (existsSync(target) && readFileSync(target, "utf8") === text) continue;
    makeFolder(dirname(target));
    writeTextFile(target, text);
  }
}
