/**
 * Table 1 of the paper, what each method stores and trains for one linear: the published formulas, corrected, beside what our own library
 * allocated for a real layer. Reads like §3.2: formulas (formulas.ts), a layer with each method's adapter (one-layer.ts), the counts
 * beside the formulas (layer-tables.ts).
 */
import { runCommand } from "../scripts/arguments.ts";
import { LAYER_ARGS, runLayerTable } from "./layer-command.ts";
import { storageTable } from "./layer-tables.ts";

const EXAMPLES = `Examples
  bun run experiments/table1.ts
        up_proj of the embedded tiny model, rank 8
  bun run experiments/table1.ts --preset small --model models/smollm2-135m --linear down_proj --rank 64
  bun run experiments/table1.ts --preset paper
        LLaMA-7B's shape at rank 32; counts do not depend on the weights, so none are needed
  bun run experiments/table1.ts --dry-run
        the formulas alone

table.md, table.csv and table.json are written to --out. A count that is not what its formula says is said not to hold.`;

await runCommand({
  name: "bun run experiments/table1.ts",
  description: "Table 1: what each method stores and trains for one linear, formulas and counts.",
  args: LAYER_ARGS,
  examples: EXAMPLES,
  run: (args) => runLayerTable(storageTable, args),
});
