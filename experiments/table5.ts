/**
 * Table 5 of the paper, QSBoRA on MMLU: six methods fine-tune a base in NF4 on Alpaca and on FLAN v2, and the adapters are
 * asked MMLU behind five shots. Reads like §5.3: which model and data, which methods (recipes/table5.ts), then one cell after
 * the other (mmlu-cell.ts), then our table beside the published one (mmlu-report.ts).
 */
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { runCommand } from "../scripts/arguments.ts";
import { stopOnSignals } from "../scripts/stop.ts";
import { InputError } from "../src/errors.ts";
import { withTemporaryFolder } from "../src/formats/files.ts";
import { closeDevice } from "../src/native/device.ts";
import { readCell, readPredictions } from "./cell-file.ts";
import { runMmluCell } from "./mmlu-cell.ts";
import type { MmluCell } from "./mmlu-cell-file.ts";
import { mmluDryRun } from "./mmlu-dry-run.ts";
import { writeMmluFiles } from "./mmlu-files.ts";
import { mmluText } from "./mmlu-report.ts";
import { type MmluStudy, openMmluStudy } from "./mmlu-study.ts";
import { type MmluOutcome, namesOf, splitsOf } from "./mmlu-summary.ts";
import { MMLU_ARGS, mmluFlags, mmluTitle } from "./mmlu-table.ts";
import { sayStopped, watchLines } from "./run-progress.ts";
import { averageFigure, rowsOf } from "./summary.ts";
import { deviceFor, TABLE_ARGS } from "./table-command.ts";

const EXAMPLES = `Examples
  bun run experiments/table5.ts
        the embedded tiny model, its world's records and subjects: all eight rows, a minute or two, no download
  bun run experiments/table5.ts --methods lora,sbora-fa --seeds 1..3 --train-on flan-v2 --out results/letters
  bun run experiments/table5.ts --preset small --model models/smollm2-135m --data data
        a real model on real records and questions: minutes a cell on two cores
  bun run experiments/table5.ts --preset small --model DIR --data DIR --dry-run
        steps, tokens, memory and expected time; nothing is trained
  bun run experiments/table5.ts --preset paper --model models/llama-7b --data data

One JSON a cell is written to --out, its predictions beside it, and table.md, .csv, .json and .svg from all of them. Started again,
finished cells are skipped and an interrupted one goes on; cells of another recipe are refused. --data is a folder with
alpaca/alpaca_data.json, flan2022/*.jsonl (either may be missing), and mmlu/ as Hendrycks' dev/, val/ and test/ with
<subject>_<split>.csv, or as five_shot_mmlu_{val,test}.json. scripts/download.ts fetches alpaca and mmlu.`;

const ARGS = {
  ...MMLU_ARGS,
  "dry-run": TABLE_ARGS["dry-run"],
  collect: TABLE_ARGS.collect,
} as const;

async function main(args: ParsedArgs<typeof ARGS>): Promise<void> {
  const { preset, flags } = mmluFlags(args);
  const device = await deviceFor(args);
  try {
    if (args["dry-run"]) {
      const planned = (out: string): string => mmluDryRun(openMmluStudy(device, preset, { ...flags, out }));
      console.log(await withTemporaryFolder(planned));
      return;
    }
    const study = openMmluStudy(device, preset, flags);
    if (args.collect) collectStudy(study, flags.out);
    else await runStudy(study, flags.out);
  } finally {
    closeDevice(device);
  }
}

/** Every set's base, then its methods; what is finished already costs nothing. */
async function runStudy(study: MmluStudy, out: string): Promise<void> {
  const stop = stopOnSignals();
  const progress = watchLines(study.cells.length, () => stop.signal !== null);
  const outcomes: MmluOutcome[] = [];
  for (const plan of study.cells) {
    const cell = await runMmluCell(study, plan, progress.watch(mmluTitle(plan), plan.place.json));
    if (cell === null) {
      progress.end();
      return sayStopped(stop);
    }
    progress.finished(factsOf(cell), cell.recipe.training !== null);
    outcomes.push({ cell, predictions: readPredictions(plan.place) });
  }
  progress.end();
  writeTable(study, out, outcomes);
}

/** The table of the cells that are finished, wherever they ran; which ones are not is said, and stands below the table. */
function collectStudy(study: MmluStudy, out: string): void {
  const outcomes: MmluOutcome[] = [];
  const unfinished: string[] = [];
  for (const [i, plan] of study.cells.entries()) {
    const cell = readCell<MmluCell>(plan.place, plan.recipe);
    if (cell) outcomes.push({ cell, predictions: readPredictions(plan.place) });
    else unfinished.push(`${i + 1} (${mmluTitle(plan)})`);
  }
  const total = study.cells.length;
  if (outcomes.length === 0) {
    throw new InputError(
      `${out}: none of the ${total} cells is finished. Run them all by this command without --collect, or one by one: ` +
        `bun run experiments/cell.ts table5 with the same flags and --index 1 to ${total}.`,
    );
  }
  const left = `Not finished, and not in this table: cells ${unfinished.join(", ")} of ${total}.`;
  writeTable(study, out, outcomes, unfinished.length > 0 ? [left] : []);
  if (unfinished.length > 0) console.error(left);
}

function writeTable(
  { preset, modelName, missing, remarks }: MmluStudy,
  out: string,
  outcomes: readonly MmluOutcome[],
  more: readonly string[] = [],
): void {
  const report = { preset, modelName, missing, remarks: [...more, ...remarks], outcomes };
  writeMmluFiles(out, report);
  console.log(mmluText(report));
  console.log(
    `\n${outcomes.length} cells in ${out}, this table with every subject in ${join(out, "table.md")}, .csv, .json and .svg`,
  );
}

function factsOf(cell: MmluCell): string[] {
  const rows = rowsOf([{ cell, predictions: [] }]);
  const averages = splitsOf(rows).map((split) => {
    const figure = averageFigure(rows[0]!, namesOf(rows, split), "labels");
    return `${split} ${figure?.value.toFixed(1)} %`;
  });
  const loss = cell.tasks.heldOut?.merged;
  return [`MMLU ${averages.join(", ")}`, loss === undefined ? "" : `held-out loss ${loss.toFixed(3)}`];
}

await runCommand({
  name: "bun run experiments/table5.ts",
  description:
    "Table 5: a 4-bit base fine-tuned by six methods, asked MMLU with five shots, beside the paper's.",
  args: ARGS,
  examples: EXAMPLES,
  run: main,
});
