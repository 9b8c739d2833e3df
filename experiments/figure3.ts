/**
 * Figure 3 of the paper: memory against time while LLaMA-7B is fine-tuned on arithmetic, by method and rank. Reads like §5.2:
 * what is trained (memory-recipe.ts), each run in a process of its own whose memory is sampled (memory-sample.ts), then the
 * curves and the paper's claims held against them (memory-report.ts).
 */
import { runCommand } from "../scripts/arguments.ts";
import { FIGURE_ARGS, runFigure } from "./memory-command.ts";
import { figure3 } from "./memory-recipe.ts";

const EXAMPLES = `Examples
  bun run experiments/figure3.ts
        the embedded tiny model: a minute or two, no download
  bun run experiments/figure3.ts --preset small --model models/smollm2-135m --data data/llm-adapters
        a real model: 200 steps a curve, ten curves
  bun run experiments/figure3.ts --preset small --model DIR --data DIR --methods lora,dora,sbora-fa --ranks 32
  bun run experiments/figure3.ts --preset small --model DIR --data DIR --dry-run
        steps and planned memory; nothing is trained
  bun run experiments/figure3.ts --preset paper --model models/llama-7b --data data/llm-adapters --compute bf16

One JSON a curve is written to --out, and figure.svg, figure.csv, figure.json and figure.md from all of them. Started again,
finished curves are not measured again. Times are the methods' only on a machine that does nothing else: what others took of
it is measured and said. The two figures differ in the paper's model; on one --model they show the same thing.`;

await runCommand({
  name: "bun run experiments/figure3.ts",
  description: "Figure 3: memory against time while training, five methods at two ranks.",
  args: FIGURE_ARGS,
  examples: EXAMPLES,
  run: (args) => runFigure(figure3, args),
});
