/**
 * Table 3 of the paper, commonsense reasoning: six fine-tuning methods, each trained on the mix of eight tasks, merged
 * into the base and asked all of them. Reads like §5.1: which model and data, which methods (recipes/table3.ts), then one
 * cell after the other (cell.ts), then our table beside the published one (table-report.ts).
 */
import { runCommand } from "../scripts/arguments.ts";
import { runTable, TABLE_ARGS } from "./table-command.ts";
import { commonsense } from "./task-tables.ts";

const EXAMPLES = `Examples
  bun run experiments/table3.ts
        the embedded tiny model and its invented world: all methods, a few minutes, no download
  bun run experiments/table3.ts --methods lora,sbora-fa --ranks 4,8,16 --seeds 1..3 --out results/ranks
  bun run experiments/table3.ts --preset small --model models/smollm2-135m --data data/llm-adapters
        a real model on real tasks: minutes a cell on two cores, hours a table
  bun run experiments/table3.ts --preset small --model DIR --data DIR --dry-run
        steps, tokens, memory and expected time; nothing is trained
  bun run experiments/table3.ts --preset paper --model models/llama-7b --data data/llm-adapters --compute bf16

One JSON a cell is written to --out, its predictions beside it, and table.md, .csv, .json and .svg from all of them. Started again, finished cells are
skipped and an interrupted one goes on; cells of another recipe are refused. --data is a folder with
ft-training_set/<mix>.json and dataset/<task>/test.json; test sets that are not there leave – in the table.`;

await runCommand({
  name: "bun run experiments/table3.ts",
  description: "Table 3: commonsense reasoning, six methods beside the paper's.",
  args: TABLE_ARGS,
  examples: EXAMPLES,
  run: (args) => runTable(commonsense, args),
});
