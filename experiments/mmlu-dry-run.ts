/** --dry-run of Table 5: steps, tokens, memory and expected time of every cell. One training pass a kind is timed. */
import { formatSize } from "../scripts/arguments.ts";
import { sharedLength } from "../src/generation/next-token.ts";
import { formatSeconds } from "../src/reporting/progress.ts";
import { right, textTable } from "../src/reporting/table.ts";
import { measureTraining } from "../src/training/measure.ts";
import { prepareRun } from "../src/training/prepare.ts";
import { encodedMmlu, runInput } from "./mmlu-cell.ts";
import type { MmluStudy } from "./mmlu-study.ts";
import { quantizedTitle } from "./mmlu-summary.ts";
import { inMillions } from "./parameters.ts";

export function mmluDryRun(study: MmluStudy): string {
  const { device, modelDir, cells, sets } = study;
  const notes = new Set<string>(study.remarks);
  /** Seeds of one set, method and rank take the same time. */
  const measured = new Map<string, number>();
  let asked = 0;
  let total = 0;
  const rows = cells.flatMap((cell) => {
    const { recipe, training } = cell;
    if (!recipe.training) return [];
    const run = prepareRun(runInput(study, cell, { onNote: (note) => notes.add(note) }));
    asked = askedTokens(study, run.tokenizer);
    const kind = `${recipe.set} ${training.method} ${training.rank}`;
    const secondsPerToken = measured.get(kind) ?? measureTraining(device, modelDir, run, training);
    measured.set(kind, secondsPerToken);
    const { plan, steps, tokensPerStep, validation } = run;
    const held = validation.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const validations = Math.floor(steps / training.evalEvery) + 2;
    // Forward alone is a third of a training pass.
    const seconds = secondsPerToken * (steps * tokensPerStep + (validations * held + asked) / 3);
    total += seconds;
    return [
      [
        recipe.set,
        quantizedTitle(training.method),
        `${training.rank}`,
        `${training.seed}`,
        inMillions(plan.parameters),
        `${steps}`,
        formatSize(steps * tokensPerStep),
        formatSize(plan.weights + plan.trainable + plan.kept + plan.scratch, "B"),
        `${Math.round(1 / secondsPerToken)}`,
        formatSeconds(seconds),
      ],
    ];
  });
  const numbers = ["r", "seed", "trained", "steps", "tokens", "memory", "tokens/s", "expected"];
  const columns = [{ title: "set" }, { title: "method" }, ...numbers.map(right)];
  return [
    `model    ${study.modelName} (${modelDir}), blocks in ${study.preset.quantize}`,
    ...[...sets.values()].map(
      ({ set, path, records }) => `data     ${set.name}: ${path}, ${records.length} records`,
    ),
    ...[...study.mmlu].map(([split, { form, subjects }]) => {
      const questions = subjects.reduce((sum, subject) => sum + subject.questions.length, 0);
      return `MMLU     ${split}: ${subjects.length} subjects, ${questions} questions (${form})`;
    }),
    ...(study.missing.length > 0 ? [`missing  ${study.missing.join(", ")}`] : []),
    "",
    textTable({ columns, rows }),
    "",
    `${formatSize(asked)} tokens of MMLU a cell, shots once a subject`,
    `about ${formatSeconds(total)} for ${rows.length} cells, those of the base beside them; speed measured on one pass`,
    ...[...notes].map((note) => `note: ${note}`),
  ].join("\n");
}

/** Tokens that a cell computes for MMLU: what a subject's prompts share once, and the rest of each. */
function askedTokens(study: MmluStudy, tokenizer: Parameters<typeof encodedMmlu>[1]): number {
  return encodedMmlu(study, tokenizer).subjects.reduce((sum, { prompts }) => {
    const shared = sharedLength(prompts.map(({ tokens }) => tokens));
    return sum + shared + prompts.reduce((own, { tokens }) => own + tokens.length - shared, 0);
  }, 0);
}
