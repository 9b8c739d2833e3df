/** Table 5 as a list of cells, and the flags that say which ones there are. */
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { COMPUTE_TYPES, choiceFlag, listFlag, numberFlag, wholeFlag } from "../scripts/arguments.ts";
import { doraNorms } from "../src/adapters/dora.ts";
import { overlongKinds } from "../src/evaluation/mmlu.ts";
import { readCell } from "./cell-file.ts";
import type { CellTable, ListedCell } from "./cell-tables.ts";
import { runMmluCell } from "./mmlu-cell.ts";
import type { MmluCell, MmluPlan } from "./mmlu-cell-file.ts";
import { type MmluFlags, type MmluStudy, openMmluStudy, reopenMmluCell } from "./mmlu-study.ts";
import { quantizedTitle } from "./mmlu-summary.ts";
import { wholeList } from "./number-lists.ts";
import type { PresetName } from "./recipes/table3.ts";
import { type MmluPreset, mmluPresets, setNames } from "./recipes/table5.ts";
import { STUDY_ARGS } from "./table-command.ts";

const { beams: _beams, tasks: _tasks, ...SHARED } = STUDY_ARGS;
const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

export const MMLU_ARGS = {
  ...SHARED,
  data: text("DIR", "Folder with Alpaca, FLAN v2 and MMLU. Default: the tiny world's (preset tiny)"),
  limit: text("N", "Questions a subject. Default: the preset's"),
  "train-on": text("a,b", `Out of ${setNames.join(", ")}. Default: those that are there`),
  subjects: text("a,b", "MMLU's subjects, as its files name them. Default: all that are there"),
  overlong: text(
    overlongKinds.join("|"),
    "What a too long prompt loses: its end, or its last shots. Default: the preset's",
  ),
  "dora-norm": text(
    doraNorms.join("|"),
    "QDoRA's: the official 4-bit code's, without s, or that of Tables 3 and 4. Default: the preset's",
  ),
} as const;

/** Preset and flags as a command line has them. */
export function mmluFlags(args: ParsedArgs<typeof MMLU_ARGS>): { preset: MmluPreset; flags: MmluFlags } {
  const preset = mmluPresets[choiceFlag(args, "preset", Object.keys(mmluPresets) as PresetName[])!];
  const flags: MmluFlags = {
    model: args.model ?? null,
    data: args.data ?? null,
    sets: listFlag(args, "train-on") ?? null,
    methods: listFlag(args, "methods") ?? null,
    ranks: wholeList(args, "ranks", 1),
    seeds: wholeList(args, "seeds", 0),
    steps: wholeFlag(args, "steps", 1) ?? null,
    learningRate: numberFlag(args, "lr", { min: 0 }) ?? null,
    limit: wholeFlag(args, "limit", 1) ?? null,
    subjects: listFlag(args, "subjects") ?? null,
    overlong: choiceFlag(args, "overlong", overlongKinds) ?? null,
    doraNorm: choiceFlag(args, "dora-norm", doraNorms) ?? null,
    compute: choiceFlag(args, "compute", COMPUTE_TYPES) ?? null,
    out: args.out ?? join("results", "table5", preset.name),
  };
  return { preset, flags };
}

export function mmluTitle({ recipe: { training, set } }: Pick<MmluPlan, "recipe">): string {
  if (!training) return `${set}: 4-bit base`;
  return `${set}: ${quantizedTitle(training.method)} r=${training.rank} seed ${training.seed}`;
}

function listed(study: MmluStudy, plan: MmluPlan): ListedCell {
  return {
    title: mmluTitle(plan),
    place: plan.place,
    read: () => readCell<MmluCell>(plan.place, plan.recipe),
    run: (watch) => runMmluCell(study, plan, watch),
  };
}

export const mmluTable: CellTable = {
  args: MMLU_ARGS,
  open(device, args) {
    const { preset, flags } = mmluFlags(args as ParsedArgs<typeof MMLU_ARGS>);
    const study = openMmluStudy(device, preset, flags);
    return study.cells.map((plan) => listed(study, plan));
  },
  reopen(device, stored, place, flags) {
    const study = reopenMmluCell(device, stored as MmluCell, place, flags);
    return listed(study, study.cells[0]!);
  },
};
