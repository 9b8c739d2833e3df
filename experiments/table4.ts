/**
 * Table 4 of the paper, arithmetic reasoning: six fine-tuning methods, each trained on word problems with their reckoning
 * written out, merged into the base and asked six test sets. Reads like §5.2: which model and data, which methods
 * (recipes/table4.ts), then one cell after the other (cell.ts), then our table beside the published one (table-report.ts),
 * AQuA by both rules, and the average with and without the sets that the paper's training file contains.
 */
import { runCommand } from "../scripts/arguments.ts";
import { sharedQuestions } from "./shared-questions.ts";
import { runTable, TABLE_ARGS } from "./table-command.ts";
import { arithmetic } from "./task-tables.ts";

const EXAMPLES = `Examples
  bun run experiments/table4.ts
        the embedded tiny model and sums up to four: all methods, a few minutes, no download
  bun run experiments/table4.ts --methods lora,sbora-fa --seeds 1..3 --out results/sums
  bun run experiments/table4.ts --preset small --model models/smollm2-135m --data data/llm-adapters
        a real model on real word problems: minutes a cell on two cores, hours a table
  bun run experiments/table4.ts --preset small --model DIR --data DIR --dry-run
        steps, tokens, memory and expected time; nothing is trained
  bun run experiments/table4.ts --preset paper --model models/llama-7b --data data/llm-adapters --compute bf16

One JSON a cell is written to --out, its predictions beside it, and table.md, .csv, .json and .svg from all of them. Started again, finished cells are
skipped and an interrupted one goes on; cells of another recipe are refused. --data is a folder with
ft-training_set/<mix>.json and dataset/<task>/test.json (MultiArith, gsm8k, AddSub, AQuA, SingleEq, SVAMP); test sets that
are not there leave – in the table.`;

await runCommand({
  name: "bun run experiments/table4.ts",
  description: "Table 4: arithmetic reasoning, six methods beside the paper's.",
  args: TABLE_ARGS,
  examples: EXAMPLES,
  run: (args) => runTable(arithmetic, args, sharedQuestions),
});
