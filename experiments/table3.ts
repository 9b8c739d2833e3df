/**
 * Table 3 of the paper, commonsense reasoning: six fine-tuning methods, each trained on the mix of eight tasks, merged
 * into the base and asked all of them. Reads like §5.1: which model and data, which methods, then one cell after the
 * other, then our table beside the published one.
 */
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import {
  COMPUTE_TYPES,
  choiceFlag,
  listFlag,
  numberFlag,
  runCommand,
  wholeFlag,
} from "../scripts/arguments.ts";
import { methodNames } from "../src/adapters/adapter.ts";
import { InputError } from "../src/errors.ts";
import { commonsenseTasks } from "../src/evaluation/tasks/registry.ts";
import { writeTextFile } from "../src/formats/files.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";
import { commandLine } from "../src/reporting/manifest.ts";
import { type CellPlan, runCell } from "./cell.ts";
import { readPredictions } from "./cell-file.ts";
import { dryRun } from "./dry-run.ts";
import { type PresetName, presets } from "./recipes/table3.ts";
import { stopOnSignals, watchCells } from "./run-progress.ts";
import { type OpenedStudy, openStudy } from "./study.ts";
import type { Outcome } from "./summary.ts";
import { markdownReport, textReport } from "./table3-report.ts";

const EXAMPLES = `Examples
  bun run experiments/table3.ts
        the embedded tiny model and its invented world: all methods, a few minutes, no download
  bun run experiments/table3.ts --methods lora,sbora-fa --ranks 4,8,16 --seeds 1,2,3 --out results/ranks
  bun run experiments/table3.ts --preset small --model models/smollm2-135m --data data/llm-adapters
        a real model on real tasks: minutes a cell on two cores, hours a table
  bun run experiments/table3.ts --preset small --model DIR --data DIR --dry-run
        steps, tokens, memory and expected time; nothing is trained
  bun run experiments/table3.ts --preset paper --model models/llama-7b --data data/llm-adapters --compute bf16

One JSON a cell is written to --out, its predictions beside it, and table.md from all of them. Started again, finished cells
are skipped and an interrupted one goes on; cells of another recipe are refused. --data is a folder with
ft-training_set/<mix>.json and dataset/<task>/test.json; test sets that are not there leave – in the table.`;

const LIBRARIES = ["cpu", "reference"] as const;
const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

const ARGS = {
  preset: { ...text("tiny|small|paper", "Model, data and recipe together"), default: "tiny" },
  model: text("DIR", "Hugging Face model folder. Default: the embedded model (preset tiny)"),
  data: text("DIR", "LLM-Adapters' files. Default: the tiny world's (preset tiny)"),
  methods: text("a,b", `Out of ${methodNames.join(", ")}. Default: the paper's six`),
  ranks: text("8,16", "Ranks of every method. Default: the preset's"),
  seeds: text("1,2,3", "Index draw, init, shuffle and dropout. Default: 42"),
  steps: text("N", "Optimizer steps. Default: the preset's"),
  lr: text("RATE", "Learning rate. Default: the preset's"),
  limit: text("N", "Test records a task. Default: the preset's"),
  tasks: text("a,b", `Out of ${commonsenseTasks.map(({ name }) => name).join(", ")}`),
  beams: text("N", "Beams of the generation. Default: 4"),
  out: text("DIR", "Default: results/table3/<preset>"),
  compute: text(COMPUTE_TYPES.join("|"), "Type of the products. Default: the preset's"),
  device: { ...text(LIBRARIES.join("|"), "Kernels; reference: readable scalar ones, slow"), default: "cpu" },
  threads: text("N", "Threads (default: the cores this process may use)"),
  "dry-run": { type: "boolean", default: false, description: "Print the plan; train nothing" },
} as const;

async function table3(args: ParsedArgs<typeof ARGS>): Promise<void> {
  const preset = presets[choiceFlag(args, "preset", Object.keys(presets) as PresetName[])!];
  const flags = {
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
    out: args.out ?? join("results", "table3", preset.name),
  };
  const threads = wholeFlag(args, "threads", 1);
  const library = choiceFlag(args, "device", LIBRARIES)!;
  const device = await openDevice({ library, ...(threads === undefined ? {} : { threads }) });
  try {
    const study = openStudy(device, preset, flags);
    if (args["dry-run"]) console.log(dryRun(study));
    else await runStudy(study, flags.out);
  } finally {
    closeDevice(device);
  }
}

/** The base model's cell, then every method's; what is finished already costs nothing. */
async function runStudy(study: OpenedStudy, out: string): Promise<void> {
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
  const { preset, modelName, missing } = study;
  const tasks = tasksOf(study.cells);
  const report = { preset, modelName, tasks, missing, outcomes };
  writeTextFile(join(out, "table.md"), markdownReport(report));
  console.log(textReport(report));
  console.log(`\n${outcomes.length} cells in ${out}, this table in ${join(out, "table.md")}`);
}

function tasksOf(cells: readonly CellPlan[]): readonly string[] {
  return cells[0]?.recipe.evaluation.tasks ?? [];
}

function wholeList(args: Record<string, unknown>, flag: string, least: number): number[] | null {
  const values = listFlag(args, flag)?.map(Number);
  if (values === undefined) return null;
  if (values.every((value) => Number.isSafeInteger(value) && value >= least)) return [...new Set(values)];
  throw new InputError(
    `--${flag} is "${String(args[flag])}"; expected whole numbers of at least ${least} with commas between them.`,
  );
}

await runCommand({
  name: "bun run experiments/table3.ts",
  description: "Table 3: commonsense reasoning, six methods beside the paper's.",
  args: ARGS,
  examples: EXAMPLES,
  run: table3,
});
