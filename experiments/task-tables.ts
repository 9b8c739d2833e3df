/** What tells Tables 3 and 4 apart; everything else about them (cells, study, report) is shared. */
import type { Task } from "../src/evaluation/task.ts";
import { arithmeticTasks, commonsenseTasks } from "../src/evaluation/tasks/registry.ts";
import { presets as commonsensePresets, type Preset, type PresetName } from "./recipes/table3.ts";
import { arithmeticPresets } from "./recipes/table4.ts";
import { writeTinyData, writeTinySums } from "./tiny/data.ts";

export interface TaskTable {
  /** In recipes and folder names; part of every cell's hash. */
  readonly name: "table3" | "table4";
  /** Of the paper. */
  readonly number: 3 | 4;
  readonly subject: string;
  /** In the paper's column order: `paper-data.ts` has the columns in the same. */
  readonly tasks: readonly Task[];
  readonly presets: Readonly<Record<PresetName, Preset>>;
  /** The tiny world's files for this table. */
  readonly writeTinyData: (root: string) => void;
  /** Averages over part of the columns, beside the plain one. */
  readonly averages: readonly PartialAverage[];
}

export interface PartialAverage {
  readonly title: string;
  readonly tasks: readonly string[];
  /** Why it stands there; said once below the first table. */
  readonly note: string;
}

export const commonsense: TaskTable = {
  name: "table3",
  number: 3,
  subject: "commonsense reasoning",
  tasks: commonsenseTasks,
  presets: commonsensePresets,
  writeTinyData,
  averages: [],
};

/** Test sets that lie in MAWPS, which `math_10k.json` holds (protocol §3.1). */
const CONTAMINATED = ["MultiArith", "AddSub", "SingleEq"];

export const arithmetic: TaskTable = {
  name: "table4",
  number: 4,
  subject: "arithmetic reasoning",
  tasks: arithmeticTasks,
  presets: arithmeticPresets,
  writeTinyData: writeTinySums,
  averages: [
    {
      title: "Avg 3",
      tasks: arithmeticTasks.map(({ name }) => name).filter((name) => !CONTAMINATED.includes(name)),
      note:
        "Avg 3 leaves MultiArith, AddSub and SingleEq out: the paper's training file math_10k.json holds MAWPS, which " +
        "contains most of their questions (490 of 600, 327 of 395 and 436 of 508), so they are no test of a model " +
        "trained on it.",
    },
  ],
};
