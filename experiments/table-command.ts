/** What `table3.ts` and `table4.ts` share as commands: their flags, and running the cells one after the other. */
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { COMPUTE_TYPES, choiceFlag, listFlag, numberFlag, wholeFlag } from "../scripts/arguments.ts";
import { stopOnSignals } from "../scripts/stop.ts";
import { methodNames } from "../src/adapters/adapter.ts";
import { InputError } from "../src/errors.ts";
import { withTemporaryFolder } from "../src/formats/files.ts";
import { closeDevice, type Device, openDevice } from "../src/native/device.ts";
import { openPlanningDevice } from "../src/native/planning-device.ts";
import { readCell, readPredictions } from "./cell-file.ts";
import { dryRun } from "./dry-run.ts";
import { wholeList } from "./number-lists.ts";
import type { Preset, PresetName } from "./recipes/table3.ts";
import { runCell } from "./run-cell.ts";
import { sayStopped, titleOf, watchCells } from "./run-progress.ts";
import { type OpenedStudy, openStudy, type StudyFlags } from "./study.ts";
import type { Outcome } from "./summary.ts";
import { writeTableFiles } from "./table-files.ts";
import { textReport } from "./table-report.ts";
import type { TaskTable } from "./task-tables.ts";

const LIBRARIES = ["cpu", "cuda", "reference"] as const;
const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

/** Flags that say which cells a table has, and how they are computed. */
export const STUDY_ARGS = {
  preset: { ...text("tiny|small|paper", "Model, data and recipe together"), default: "tiny" },
  model: text("DIR", "Hugging Face model folder. Default: the embedded model (preset tiny)"),
  data: text("DIR", "LLM-Adapters' files. Default: the tiny world's (preset tiny)"),
  methods: text("a,b", `Out of ${methodNames.join(", ")}. Default: the paper's six`),
  ranks: text("8,16", "Ranks of every method. Default: the preset's"),
  seeds: text("1..3", "Index draw, init, shuffle and dropout. Default: the preset's"),
  steps: text("N", "Optimizer steps. Default: the preset's"),
  lr: text("RATE", "Learning rate. Default: the preset's"),
  limit: text("N", "Test records a task. Default: the preset's"),
  tasks: text("a,b", "Out of the table's columns, by their folders' names"),
  beams: text("N", "Beams of the generation. Default: 4"),
  out: text("DIR", "Default: results/<table>/<preset>"),
  compute: text(COMPUTE_TYPES.join("|"), "Type of the products. Default: the preset's"),
  device: { ...text(LIBRARIES.join("|"), "Kernels; reference: readable scalar ones, slow"), default: "cpu" },
  threads: text("N", "Threads (default: the cores this process may use)"),
} as const;

/** The flags of a table's command. */
export const TABLE_ARGS = {
  ...STUDY_ARGS,
  "dry-run": { type: "boolean", default: false, description: "Print the plan; train nothing" },
  collect: {
    type: "boolean",
    default: false,
    description: "Make the table of the finished cells; train nothing",
  },
} as const;

type StudyArgs = ParsedArgs<typeof STUDY_ARGS>;

/** Preset and flags as a command line has them. */
export function studyFlags(table: TaskTable, args: StudyArgs): { preset: Preset; flags: StudyFlags } {
  const preset = table.presets[choiceFlag(args, "preset", Object.keys(table.presets) as PresetName[])!];
  const flags: StudyFlags = {
    model: args.model ?? null,
    data: args.data ?? null,
    methods: listFlag(args, "methods") ?? null,
    ranks: wholeList(args, "ranks", 1),
    seeds: wholeList(args, "seeds", 0),
    steps: wholeFlag(args, "steps", 1) ?? null,
    learningRate: numberFlag(args, "lr", { min: 0 }) ?? null,
    limit: wholeFlag(args, "limit", 1) ?? null,
    tasks: listFlag(args, "tasks") ?? null,
    beams: wholeFlag(args, "beams", 1) ?? null,
    compute: choiceFlag(args, "compute", COMPUTE_TYPES) ?? null,
    out: args.out ?? join("results", table.name, preset.name),
  };
  return { preset, flags };
}

/** What collects runs nothing; everything else needs kernels. @throws InputError for --dry-run and --collect at once */
export async function deviceFor(args: Record<string, unknown>): Promise<Device> {
  if (args.collect === true && args["dry-run"] === true)
    throw new InputError("--dry-run plans what is to run, --collect reads what has run; give one of them.");
  return args.collect === true ? openPlanningDevice() : openTableDevice(args);
}

export async function openTableDevice(args: Record<string, unknown>): Promise<Device> {
  const threads = wholeFlag(args, "threads", 1);
  const library = choiceFlag(args, "device", LIBRARIES)!;
  return openDevice({ library, ...(threads === undefined ? {} : { threads }) });
}

/** `remarks`: what is to be said about the data of this run, below the table. */
export async function runTable(
  table: TaskTable,
  args: ParsedArgs<typeof TABLE_ARGS>,
  remarks: (study: OpenedStudy) => string[] = () => [],
): Promise<void> {
  const { preset, flags } = studyFlags(table, args);
  const device = await deviceFor(args);
  try {
    if (args["dry-run"]) {
      const planned = (out: string): string => dryRun(openStudy(device, table, preset, { ...flags, out }));
      console.log(await withTemporaryFolder(planned));
      return;
    }
    const study = openStudy(device, table, preset, flags);
    if (args.collect) collectStudy(study, flags.out, remarks(study));
    else await runStudy(study, flags.out, remarks(study));
  } finally {
    closeDevice(device);
  }
}

/** The base model's cell, then every method's; what is finished already costs nothing. */
async function runStudy(study: OpenedStudy, out: string, remarks: readonly string[]): Promise<void> {
  const stop = stopOnSignals();
  const progress = watchCells(study, () => stop.signal !== null);
  const outcomes: Outcome[] = [];
  for (const plan of study.cells) {
    const cell = await runCell(study, plan, progress.watch(plan));
    if (cell === null) {
      progress.end();
      return sayStopped(stop);
    }
    progress.finished(cell);
    outcomes.push({ cell, predictions: readPredictions(plan.place) });
  }
  progress.end();
  writeTable(study, out, outcomes, remarks);
}

/** The table of the cells that are finished, wherever they ran; which ones are not is said, and stands below the table. */
function collectStudy(study: OpenedStudy, out: string, remarks: readonly string[]): void {
  const outcomes: Outcome[] = [];
  const unfinished: string[] = [];
  for (const [i, plan] of study.cells.entries()) {
    const cell = readCell(plan.place, plan.recipe);
    if (cell) outcomes.push({ cell, predictions: readPredictions(plan.place) });
    else unfinished.push(`${i + 1} (${titleOf(plan)})`);
  }
  const total = study.cells.length;
  if (outcomes.length === 0) {
    throw new InputError(
      `${out}: none of the ${total} cells is finished. Run them all by this command without --collect, or one by one: ` +
        `bun run experiments/cell.ts ${study.table.name} with the same flags and --index 1 to ${total}.`,
    );
  }
  const left = `Not finished, and not in this table: cells ${unfinished.join(", ")} of ${total}.`;
  writeTable(study, out, outcomes, unfinished.length > 0 ? [left, ...remarks] : remarks);
  if (unfinished.length > 0) console.error(left);
}

function writeTable(
  study: OpenedStudy,
  out: string,
  outcomes: readonly Outcome[],
  remarks: readonly string[],
): void {
  const { table, preset, modelName, missing } = study;
  const tasks = study.cells[0]?.recipe.evaluation.tasks ?? [];
  const report = { table, preset, modelName, tasks, missing, outcomes, remarks };
  writeTableFiles(out, report);
  console.log(textReport(report));
  console.log(
    `\n${outcomes.length} cells in ${out}, this table in ${join(out, "table.md")}, .csv, .json and .svg`,
  );
}
