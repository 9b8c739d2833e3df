/**
 * One cell of a table by its number, as the tasks of a job array run them (run-array.sbatch). Cells know nothing of each
 * other: any number of them may run at once, on machines that share a folder, and one that is started again goes on from
 * its checkpoint. The table's own script, with --collect, makes the table of what is there.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ParsedArgs } from "citty";
import { runCommand, wholeFlag } from "../scripts/arguments.ts";
import { stopOnSignals } from "../scripts/stop.ts";
import { InputError } from "../src/errors.ts";
import { closeDevice } from "../src/native/device.ts";
import { openPlanningDevice } from "../src/native/planning-device.ts";
import { formatSeconds } from "../src/reporting/progress.ts";
import { right, textTable } from "../src/reporting/table.ts";
import type { CellPlace } from "./cell-file.ts";
import { ownerOf } from "./cell-lock.ts";
import { type CellTable, cellTables, type ListedCell } from "./cell-tables.ts";
import { sayStopped, watchLines } from "./run-progress.ts";
import { openTableDevice } from "./table-command.ts";

const NAMES = [...cellTables.keys()];

const EXAMPLES = `Examples
  bun run experiments/cell.ts table3 --list
        all cells of the tiny Table 3 with their numbers, and which are finished
  bun run experiments/cell.ts table3 --index 2
        trains, merges and evaluates the second one
  bun run experiments/cell.ts table3 --preset small --model DIR --data DIR --seeds 1..3 --count
        how many there are: the last number of a job array
  bun run experiments/table3.ts --preset small --model DIR --data DIR --seeds 1..3 --collect
        the table, when they are finished

The table stands first; its flags are those of its own script, and the same for every cell of one table. Two processes never work on one
cell: the second is refused while the first is alive. SIGTERM and Ctrl-C save and exit with 143 or 130; the same command goes on from there.`;

// Which flags there are depends on the table.
const named = process.argv.slice(2).find((word) => cellTables.has(word));
const CELL_ARGS = {
  table: { type: "positional", required: false, description: `${NAMES.join(", ")}` },
  index: { type: "string", valueHint: "N", description: "Run this cell, from 1" },
  list: { type: "boolean", default: false, description: "Print all cells and how far they are" },
  count: { type: "boolean", default: false, description: "Print the number of cells" },
  ...cellTables.get(named ?? NAMES[0]!)!.args,
} as const;

type CellArgs = Record<string, unknown> & Pick<ParsedArgs<typeof CELL_ARGS>, "table" | "list" | "count">;

async function run(args: CellArgs): Promise<void> {
  const table = cellTables.get(args.table ?? "");
  if (!table) {
    const given = args.table ? `"${args.table}" is no table with cells` : "the table is missing";
    throw new InputError(`${given}; expected one of ${NAMES.join(", ")} in front of the flags. See --help.`);
  }
  const index = wholeFlag(args, "index", 1);
  if ([index !== undefined, args.list, args.count].filter(Boolean).length !== 1) {
    throw new InputError("Say what to do: one of --index N, --list and --count. See --help.");
  }
  if (index !== undefined) return runOne(table, args, index);
  const cells = table.open(openPlanningDevice(), args);
  console.log(args.count ? `${cells.length}` : listOf(cells));
}

async function runOne(table: CellTable, args: CellArgs, index: number): Promise<void> {
  const device = await openTableDevice(args);
  try {
    const cells = table.open(device, args);
    const cell = cells[index - 1];
    if (!cell) {
      throw new InputError(
        `--index is ${index}; ${args.table} has ${cells.length} cells with these flags, expected 1 to ${cells.length}. ` +
          "--list shows them.",
      );
    }
    const stop = stopOnSignals();
    const progress = watchLines(1, () => stop.signal !== null);
    const title = `cell ${index} of ${cells.length}, ${cell.title}`;
    const done = await cell.run(progress.watch(title, cell.place.json)).finally(progress.end);
    if (!done) return sayStopped(stop);
    progress.finished([], true);
    console.log(cell.place.json);
  } finally {
    closeDevice(device);
  }
}

/** Every cell with its number, and how far it is. */
function listOf(cells: readonly ListedCell[]): string {
  const rows = cells.map((cell, i) => [`${i + 1}`, cell.title, cell.place.name, stateOf(cell)]);
  const finished = cells.filter((cell) => cell.read() !== null).length;
  const columns = [right("cell"), { title: "" }, { title: "name" }, { title: "state" }];
  return `${textTable({ columns, rows })}\n\n${finished} of ${cells.length} finished`;
}

function stateOf(cell: ListedCell): string {
  if (cell.read()) return "finished";
  const owner = ownerOf(cell.place);
  // By the clocks of two machines: no more than a hint.
  const silent = owner && formatSeconds(Math.max(0, Date.now() - owner.seen.getTime()) / 1000);
  return [
    doneSoFar(cell.place) ?? (owner ? "starting" : "not started"),
    ...(owner ? [`${owner.who}, last sign of life ${silent} ago`] : []),
  ].join("; ");
}

function doneSoFar({ work }: CellPlace): string | null {
  const metrics = join(work, "train", "metrics.jsonl");
  const evaluated = join(work, "evaluated");
  const steps = existsSync(metrics) ? readFileSync(metrics, "utf8").split("\n").length - 1 : 0;
  const sets = existsSync(evaluated)
    ? readdirSync(evaluated).filter((name) => !name.startsWith(".")).length
    : 0;
  const parts = [
    ...(steps > 0 ? [`${steps} steps trained`] : []),
    ...(sets > 0 ? [`${sets} test sets asked`] : []),
  ];
  return parts.length > 0 ? parts.join(", ") : null;
}

await runCommand({
  name: "bun run experiments/cell.ts",
  description: "One cell of a table by its number, for job arrays.",
  args: CELL_ARGS,
  examples: EXAMPLES,
  run: (args) => run(args as CellArgs),
});
