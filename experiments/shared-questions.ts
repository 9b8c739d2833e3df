/** How many test questions stand in the training file: what is contaminated is counted, not assumed. */
import type { InstructionRecord } from "../src/data/records.ts";
import type { Study } from "./run-cell.ts";

/** One sentence a run, over the records that are asked. */
export function sharedQuestions({ trainingRecords, tests, trainingFile }: SharedInput): string[] {
  if (tests.size === 0) return [];
  const counts = [...tests].map(
    ([task, records]) => `${task} ${countShared(trainingRecords, records)} of ${records.length}`,
  );
  return [
    `Test questions that stand in ${trainingFile.split("/").at(-1)}, letters and digits compared: ${counts.join(", ")}.`,
  ];
}

type SharedInput = Pick<Study, "trainingRecords" | "tests" | "trainingFile">;

export function countShared(
  training: readonly Pick<InstructionRecord, "instruction">[],
  tests: readonly Pick<InstructionRecord, "instruction">[],
): number {
  const known = new Set(training.map(({ instruction }) => plain(instruction)));
  return tests.filter(({ instruction }) => known.has(plain(instruction))).length;
}

/** Punctuation and blanks say nothing about whether it is the same question. */
function plain(text: string): string {
  return text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "");
}
