/**
 * Multi-SBoRA, the paper's future work (Eq. 2–3): an adapter a task, trained apart with disjoint indices, all merged into one
 * model, beside LoRA adapters added up. Reads like that: which tasks and methods, then one cell after the other (the base,
 * every adapter alone, all merged), then the table, the verdicts and the picture.
 */
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { choiceFlag, formatSize, listFlag, numberFlag, runCommand, wholeFlag } from "../scripts/arguments.ts";
import { stopOnSignals } from "../scripts/stop.ts";
import { withTemporaryFolder, writeTextFile } from "../src/formats/files.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";
import { formatSeconds } from "../src/reporting/progress.ts";
import { right, textTable } from "../src/reporting/table.ts";
import { measureTraining } from "../src/training/measure.ts";
import { prepareRun } from "../src/training/prepare.ts";
import { readPredictions } from "./cell-file.ts";
import { type MultiCell, type MultiPlan, runMultiCell } from "./multi-sbora-cell.ts";
import type { MultiOutcome } from "./multi-sbora-claims.ts";
import { type MultiPresetName, multiPresets } from "./multi-sbora-recipe.ts";
import {
  csvOf,
  jsonOf,
  type MultiReport,
  markdownOf,
  PICTURE,
  pictureOf,
  textOf,
} from "./multi-sbora-report.ts";
import { type MultiStudy, openMultiStudy } from "./multi-sbora-study.ts";
import { wholeList } from "./number-lists.ts";
import { inMillions, methodTitle } from "./parameters.ts";
import { sayStopped, watchLines } from "./run-progress.ts";

const EXAMPLES = `Examples
  bun run experiments/multi-sbora.ts
        three tasks of the tiny world, SBoRA-FA, SBoRA-FB and LoRA: a few minutes, no download
  bun run experiments/multi-sbora.ts --methods sbora-fa,lora,oa --tasks piqa,hellaswag,ARC-Easy,ARC-Challenge --out results/four
  bun run experiments/multi-sbora.ts --seeds 1..3 --rank 16 --out results/rank-16
  bun run experiments/multi-sbora.ts --preset small --model models/smollm2-135m --data data/llm-adapters --dry-run
        steps, tokens, memory and expected time of a real model on real tasks; nothing is trained

One JSON a cell is written to --out with its predictions beside it; table.md, .csv, .json and picture.svg are made from all of them.
Started again, finished cells are skipped and an interrupted one goes on; cells of another recipe are refused. --data is a folder with
dataset/<task>/test.json and, to train on, dataset/<task>/train.json or a mix of LLM-Adapters' in ft-training_set.`;

const text = (valueHint: string, description: string) =>
  ({ type: "string", valueHint, description }) as const;

const ARGS = {
  preset: { ...text("tiny|small", "Model, data and recipe together"), default: "tiny" },
  model: text("DIR", "Hugging Face model folder. Default: the embedded model (preset tiny)"),
  data: text("DIR", "LLM-Adapters' files. Default: the tiny world's (preset tiny)"),
  methods: text("a,b", "Out of sbora-fa, sbora-fb, lora, oa, lora-fa. Default: the first three"),
  tasks: text("a,b", "Two or more, an adapter each. Default: the preset's three"),
  rank: text("N", "Rank of every adapter. Default: the preset's"),
  seeds: text("1..3", "Index draw, init, split, shuffle and dropout. Default: the preset's"),
  steps: text("N", "Optimizer steps of every adapter. Default: the preset's"),
  lr: text("RATE", "Learning rate. Default: the preset's"),
  limit: text("N", "Test records a task. Default: the preset's"),
  independent: {
    type: "boolean",
    default: true,
    description: "Train SBoRA with independently drawn indices too, added up where they meet",
    negativeDescription: "Disjoint indices only",
  },
  out: text("DIR", "Default: results/multi-sbora/<preset>"),
  threads: text("N", "Threads (default: the cores this process may use)"),
  "dry-run": { type: "boolean", default: false, description: "Print the plan; train nothing" },
} as const;

async function multiSbora(args: ParsedArgs<typeof ARGS>): Promise<void> {
  const preset = multiPresets[choiceFlag(args, "preset", Object.keys(multiPresets) as MultiPresetName[])!];
  const out = args.out ?? join("results", "multi-sbora", preset.name);
  const flags = {
    model: args.model ?? null,
    data: args.data ?? null,
    methods: listFlag(args, "methods") ?? null,
    tasks: listFlag(args, "tasks") ?? null,
    rank: wholeFlag(args, "rank", 1) ?? null,
    seeds: wholeList(args, "seeds", 0),
    steps: wholeFlag(args, "steps", 1) ?? null,
    learningRate: numberFlag(args, "lr", { min: 0 }) ?? null,
    limit: wholeFlag(args, "limit", 1) ?? null,
    independent: args.independent,
    out,
  };
  const threads = wholeFlag(args, "threads", 1);
  const device = await openDevice(threads === undefined ? {} : { threads });
  try {
    if (args["dry-run"]) {
      const planned = (dir: string): string => dryRun(openMultiStudy(device, preset, { ...flags, out: dir }));
      console.log(await withTemporaryFolder(planned));
    } else await runStudy(openMultiStudy(device, preset, flags), out);
  } finally {
    closeDevice(device);
  }
}

/** Every cell in turn; what is finished already costs nothing. */
async function runStudy(study: MultiStudy, out: string): Promise<void> {
  const stop = stopOnSignals();
  const progress = watchLines(study.cells.length, () => stop.signal !== null);
  const outcomes = new Map<string, MultiOutcome>();
  for (const plan of study.cells) {
    const cell = await runMultiCell(study, plan, progress.watch(titleOf(study, plan), plan.place.json));
    if (cell === null) {
      progress.end();
      return sayStopped(stop);
    }
    progress.finished(factsOf(cell), plan.adapters.length === 1);
    outcomes.set(plan.place.name, { cell, predictions: readPredictions(plan.place) });
  }
  progress.end();
  const report = reportOf(study, outcomes);
  writeTextFile(join(out, "table.md"), markdownOf(report));
  writeTextFile(join(out, "table.csv"), csvOf(report));
  writeTextFile(join(out, "table.json"), jsonOf(report));
  writeTextFile(join(out, PICTURE), pictureOf(report));
  console.log(textOf(report));
  console.log(
    `\n${outcomes.size} cells in ${out}, this table in table.md, .csv and .json, its picture in ${PICTURE}`,
  );
}

/** Cells by their name, put together as the tables need them. */
export function reportOf(study: MultiStudy, outcomes: ReadonlyMap<string, MultiOutcome>): MultiReport {
  const of = ({ place }: MultiPlan): MultiOutcome => outcomes.get(place.name)!;
  const variants = study.variants.map((variant) => ({
    variant,
    runs: study.plans
      .filter((plans) => plans.variant === variant)
      .map(({ seed, alone, merged }) => ({
        base: of(study.base.get(seed)!),
        alone: new Map([...alone].map(([task, plan]) => [task, of(plan)])),
        merged: of(merged),
      })),
  }));
  return { study, variants };
}

function titleOf({ seeds }: MultiStudy, { recipe, adapters, place }: MultiPlan): string {
  const [first] = adapters;
  const seed = seeds.length > 1 ? `, ${/-s(\d+)/.exec(place.name)?.[0].slice(1)}` : "";
  if (!first) return `base model${seed}`;
  const draw = recipe.draw ? `, ${recipe.draw}` : "";
  const what = adapters.length > 1 ? `${adapters.length} merged` : first.recipe.task;
  return `${methodTitle(first.recipe.training.method)}${draw}, ${what}${seed}`;
}

function factsOf({ tasks, structure }: MultiCell): string[] {
  const shares = Object.entries(tasks.sets).map(
    ([task, { scores }]) => `${task} ${scores.generation?.accuracy.toFixed(0)} %`,
  );
  const losses = Object.values(tasks.heldOut).map(({ loss }) => loss.toFixed(3));
  const exact = structure
    ? `${structure.touched} ${structure.lines} bit-equal to the single-merged models'${structure.shared > 0 ? `, ${structure.shared} shared` : ""}`
    : "";
  return [shares.join(" "), `held-out loss ${losses.join(" ")}`, exact];
}

/** Steps, tokens, memory and expected time of every kind of adapter. One training pass is timed, nothing is trained. */
function dryRun(study: MultiStudy): string {
  const notes = new Set<string>();
  let total = 0;
  const single = study.cells.filter(({ adapters }) => adapters.length === 1);
  const measured = new Map<string, number>();
  const rows = single.map(({ adapters: [adapter] }) => {
    const { task, training: recipe } = adapter!.recipe;
    const { trainingFile: dataFile, training: records, tests } = study.tasks.get(task)!;
    const run = prepareRun({
      modelDir: study.modelDir,
      dataFile,
      records,
      recipe,
      onNote: (note) => notes.add(note),
    });
    const perToken =
      measured.get(recipe.method) ?? measureTraining(study.device, study.modelDir, run, recipe);
    measured.set(recipe.method, perToken);
    const { plan, steps, tokensPerStep } = run;
    // Every adapter is asked twice, alone and merged; a prompt is about as long as a training record.
    const asked = (2 * tests.length * tokensPerStep) / recipe.batch / 3;
    const seconds = perToken * (steps * tokensPerStep + asked);
    total += seconds;
    return [
      methodTitle(recipe.method),
      task,
      `${recipe.rank}`,
      `${recipe.seed}`,
      inMillions(plan.parameters),
      `${steps}`,
      formatSize(steps * tokensPerStep),
      formatSize(plan.weights + plan.trainable + plan.kept + plan.scratch, "B"),
      formatSeconds(seconds),
    ];
  });
  const numbers = ["r", "seed", "trained", "steps", "tokens", "memory", "expected"].map(right);
  const data = study.taskNames.map((name) => {
    const { trainingFile, training, tests, part } = study.tasks.get(name)!;
    return `${name.padEnd(13)} ${training.length} training records of ${trainingFile}${part ? ` (${part})` : ""}, ${tests.length} test records`;
  });
  return [
    `model    ${study.modelName} (${study.modelDir})`,
    ...data,
    "",
    textTable({ columns: [{ title: "method" }, { title: "task" }, ...numbers], rows }),
    "",
    `about ${formatSeconds(total)} for ${rows.length} adapters, each alone and merged; speed measured on one pass, generation estimated`,
    ...[...notes].map((note) => `note: ${note}`),
  ].join("\n");
}

if (import.meta.main) {
  await runCommand({
    name: "bun run experiments/multi-sbora.ts",
    description: "Multi-SBoRA: adapters trained apart, merged into one model, beside LoRA added up.",
    args: ARGS,
    examples: EXAMPLES,
    run: multiSbora,
  });
}
