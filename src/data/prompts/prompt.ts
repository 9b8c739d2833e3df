/** How a record becomes text: one file a format, its training and its test form side by side. */
import type { InstructionRecord } from "../records.ts";

export interface PromptFormat {
  readonly name: string;
  /** One line for `--help`. */
  readonly summary: string;
  /** Text of a training record up to its reply; the reply follows directly. */
  train(record: Pick<InstructionRecord, "instruction" | "input">): string;
  /** Text an evaluation lets the model continue. */
  test(record: Pick<InstructionRecord, "instruction" | "input">): string;
}
