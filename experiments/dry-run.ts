/** --dry-run: steps, tokens, memory and expected time of every cell. One training pass is timed, nothing is trained. */
import { formatSize } from "../scripts/arguments.ts";
import { formatSeconds } from "../src/reporting/progress.ts";
import { textTable } from "../src/reporting/table.ts";
import { measureTraining } from "../src/training/measure.ts";
import { prepareRun } from "../src/training/prepare.ts";
import { inMillions, methodTitle } from "./parameters.ts";
import type { OpenedStudy } from "./study.ts";

export function dryRun(study: OpenedStudy): string {
  const { device, modelDir, trainingFile: dataFile, trainingRecords: records, cells } = study;
  const notes = new Set<string>();
  /** Seeds of one method and rank take the same time. */
  const measured = new Map<string, number>();
  const replies = replyShare(records);
  let total = 0;
  const rows = cells.flatMap(({ recipe: { training, evaluation } }) => {
    if (!training) return [];
    const run = prepareRun({
      modelDir,
      dataFile,
      records,
      recipe: training,
      onNote: (note) => notes.add(note),
    });
    const kind = `${training.method} ${training.rank}`;
    const secondsPerToken = measured.get(kind) ?? measureTraining(device, modelDir, run, training);
    measured.set(kind, secondsPerToken);
    const { plan, steps, tokensPerStep, validation } = run;
    const held = validation.reduce((sum, { tokens }) => sum + tokens.length, 0);
    const validations = Math.floor(steps / training.evalEvery) + 2;
    const tested = [...study.tests.values()].reduce((sum, set) => sum + set.length, 0);
    // A prompt is about as long as a training record, an answer as its reply, once a beam; forward alone is a third of a
    // training pass.
    const generated = evaluation.rulers.includes("generation") ? evaluation.beams * replies : 0;
    const evaluated = (tested * (evaluation.rulers.length + generated) * tokensPerStep) / training.batch;
    const seconds = secondsPerToken * (steps * tokensPerStep + (validations * held + evaluated) / 3);
    total += seconds;
    return [
      [
        methodTitle(training.method),
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
  const right = (title: string) => ({ title, align: "right" as const });
  const table = textTable({
    columns: [
      { title: "method" },
      right("r"),
      right("seed"),
      right("trained"),
      right("steps"),
      right("tokens"),
      right("memory"),
      right("tokens/s"),
      right("expected"),
    ],
    rows,
  });
  const tests = [...study.tests].map(([name, set]) => `${name} ${set.length}`).join(", ");
  return [
    `model    ${study.modelName} (${modelDir})`,
    `data     ${dataFile}, ${records.length} records`,
    `tests    ${tests || "none"}${study.missing.length > 0 ? `; not there: ${study.missing.join(", ")}` : ""}`,
    "",
    table,
    "",
    `about ${formatSeconds(total)} for ${rows.length} cells and the base model's; speed measured on one pass, generation estimated`,
    ...[...notes].map((note) => `note: ${note}`),
  ].join("\n");
}

/** Characters of the replies, of all characters of the records. */
function replyShare(records: OpenedStudy["trainingRecords"]): number {
  let [replies, all] = [0, 0];
  for (const { instruction, input, output } of records) {
    replies += output.length;
    all += instruction.length + input.length + output.length;
  }
  return all > 0 ? replies / all : 0;
}
