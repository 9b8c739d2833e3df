/**
 * Makes a cell once more from its own file and holds the two side by side: recipe and manifest say everything that decides
 * the numbers, so tasks, predictions and losses have to be equal, on the same commit and instruction set byte for byte.
 */
import { basename, dirname, resolve } from "node:path";
import { COMPUTE_TYPES, choiceFlag, required, runCommand } from "../scripts/arguments.ts";
import { stopOnSignals } from "../scripts/stop.ts";
import { InputError } from "../src/errors.ts";
import { closeDevice, type Device } from "../src/native/device.ts";
import { makeManifest } from "../src/reporting/manifest.ts";
import { type CellPlace, cellPlace } from "./cell-file.ts";
import { type CellTable, cellTables } from "./cell-tables.ts";
import {
  differentCircumstances,
  differentResults,
  noPromise,
  readWholeCell,
  type WholeCell,
} from "./compare-cells.ts";
import type { RerunFlags } from "./rerun-cell.ts";
import { sayStopped, watchLines } from "./run-progress.ts";
import { openTableDevice, STUDY_ARGS } from "./table-command.ts";

/** Differences that are printed. */
const MOST_SHOWN = 8;

const EXAMPLES = `Examples
  bun run experiments/rerun.ts results/table3/tiny/tiny-sbora-fa-r8-s42.json --out again
  bun run experiments/rerun.ts results/table3/small/smollm2-135m-lora-r32-s42.json \\
        --model models/smollm2-135m --data data/llm-adapters --out again

Model and data have to be those of the cell (by their SHA-256). Exit code 0: equal; 1: not. Stopped, the same command goes on.`;

const { model, data, device, threads } = STUDY_ARGS;
const RERUN_ARGS = {
  cell: { type: "positional", required: false, description: "File of a finished cell (.json)" },
  model,
  data,
  out: {
    type: "string",
    valueHint: "DIR",
    description: "Where to make it once more; not the folder of the cell",
  },
  compute: {
    type: "string",
    valueHint: COMPUTE_TYPES.join("|"),
    description: "Of a base model's cell, whose recipe does not say it. Default: the preset's",
  },
  device,
  threads,
} as const;

interface Rerun {
  readonly table: CellTable;
  readonly stored: WholeCell;
  readonly place: CellPlace;
}

/** Everything that can be wrong with the file and the folder. */
function openRerun(path: string, out: string): Rerun {
  if (!path.endsWith(".json")) throw new InputError(`${path}: expected the .json file of a finished cell.`);
  if (resolve(out) === resolve(dirname(path))) {
    throw new InputError(`--out is ${out}, where the cell itself lies; choose another folder.`);
  }
  const name = basename(path, ".json");
  const stored = readWholeCell(cellPlace(dirname(path), name));
  const table = cellTables.get(`${(stored.cell.recipe as { table?: unknown }).table}`);
  if (table) return { table, stored, place: cellPlace(out, name) };
  throw new InputError(
    `${path}: this is no cell of ${[...cellTables.keys()].join(", ")}; other results are made again by their own scripts.`,
  );
}

async function rerun({ table, stored, place }: Rerun, on: Device, flags: RerunFlags): Promise<void> {
  const cell = table.reopen(on, stored.cell, place, flags);
  const here = makeManifest(on, stored.cell.manifest.model, stored.cell.manifest.data);
  for (const difference of differentCircumstances(stored.cell.manifest, here))
    console.log(`other: ${difference}`);
  const doubt = noPromise(stored.cell.manifest, here);
  if (doubt) console.log(`No equality is promised: ${doubt}. It is looked for all the same.`);
  const stop = stopOnSignals();
  const progress = watchLines(1, () => stop.signal !== null);
  const made = await cell.run(progress.watch(cell.title, place.json)).finally(progress.end);
  if (!made) return sayStopped(stop);
  progress.finished([], true);
  const differences = differentResults(stored, readWholeCell(place));
  const { predictions, losses } = stored;
  if (differences.length === 0) {
    const kept = losses.length > 0 ? `${losses.length} losses` : "no losses (they were not kept)";
    console.log(`equal: every figure, ${predictions.length} predictions, ${kept}`);
    return;
  }
  console.log(`not equal, ${differences.length} differences${doubt ? "; none was promised" : ""}:`);
  for (const difference of differences.slice(0, MOST_SHOWN)) console.log(`  ${difference}`);
  if (differences.length > MOST_SHOWN) console.log(`  and ${differences.length - MOST_SHOWN} more`);
  process.exitCode = 1;
}

await runCommand({
  name: "bun run experiments/rerun.ts",
  description: "Makes a finished cell once more and compares.",
  args: RERUN_ARGS,
  examples: EXAMPLES,
  async run(args) {
    if (!args.cell)
      throw new InputError("the cell is missing; expected the file of a finished one. See --help.");
    const out = required(args, "out", "a folder to make the cell in once more");
    const opened = openRerun(args.cell, out);
    const compute = choiceFlag(args, "compute", COMPUTE_TYPES) ?? null;
    const on = await openTableDevice(args);
    try {
      await rerun(opened, on, { model: args.model ?? null, data: args.data ?? null, out, compute });
    } finally {
      closeDevice(on);
    }
  },
});
