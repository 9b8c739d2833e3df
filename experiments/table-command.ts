/** What `table3.ts` and `table4.ts` share as commands: their flags, and running the cells one after the other. */
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { COMPUTE_TYPES, choiceFlag, listFlag, numberFlag, wholeFlag } from "../scripts/arguments.ts";
import { methodNames } from "../src/adapters/adapter.ts";
import { writeTextFile } from "../src/formats/files.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";
import { commandLine } from "../src/reporting/manifest.ts";
import { runCell } from "./cell.ts";
import { readPredictions } from "./cell-file.ts";
import { dryRun } from "./dry-run.ts";
import { wholeList } from "./number-lists.ts";
import type { PresetName } from "./recipes/table3.ts";
import { stopOnSignals, watchCells } from "./run-progress.ts";
import { type OpenedStudy, openStudy, type StudyFlags } from "./study.ts";
import type { Outcome } from "./summary.ts";
import { csvReport, markdownReport, textReport } from "./table-report.ts";
import type { TaskTable } from "./task-tables.ts";

const LIBRARIES = ["cpu", "reference"] as const;
const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

/** The flags of a table's command. */
export const TABLE_ARGS = {
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
  "dry-run": { type: "boolean", default: false, description: "Print the plan; train nothing" },
} as const;

/** `remarks`: what is to be said about the data of this run, below the table. */
export async function runTable(
  table: TaskTable,
  args: ParsedArgs<typeof TABLE_ARGS>,
  remarks: (study: OpenedStudy) => string[] = () => [],
): Promise<void> {
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
  const threads = wholeFlag(args, "threads", 1);
  const library = choiceFlag(args, "device", LIBRARIES)!;
  const device = await openDevice({ library, ...(threads === undefined ? {} : { threads }) });
  try {
    const study = openStudy(device, table, preset, flags);
    if (args["dry-run"]) console.log(dryRun(study));
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
      console.error(`stopped; the same command goes on from here:\n  ${commandLine()}`);
      process.exitCode = stop.signal === "SIGTERM" ? 143 : 130;
      return;
    }
    progress.finished(cell);
    outcomes.push({ cell, predictions: readPredictions(plan.place) });
  }
  progress.end();
  const { table, preset, modelName, missing } = study;
  const tasks = study.cells[0]?.recipe.evaluation.tasks ?? [];
  const report = { table, preset, modelName, tasks, missing, outcomes, remarks };
  writeTextFile(join(out, "table.md"), markdownReport(report));
  writeTextFile(join(out, "table.csv"), csvReport(report));
  console.log(textReport(report));
  console.log(`\n${outcomes.length} cells in ${out}, this table in ${join(out, "table.md")} and .csv`);
}
