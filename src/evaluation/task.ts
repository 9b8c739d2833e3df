/** The contract of an evaluation task: where its records are, how the answer is read out of a response, what a right one is. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type InstructionRecord, readInstructionRecords } from "../data/records.ts";

/** The answers a record offers, in its order. */
export interface Choices {
  /** What `answer` names: "answer1", "true", "A". */
  readonly labels: readonly string[];
  /** The options as the instruction words them. */
  readonly texts: readonly string[];
}

/**
 * One way to score options by likelihood: log p(continuation | context) for every option. Where the context is the same for all
 * of them it stands there once.
 */
export interface Cloze {
  /** One, or one an option. */
  readonly contexts: readonly string[];
  /** One an option, in the order of the labels; each begins with the space that the layout puts there. */
  readonly continuations: readonly string[];
}

export interface Task {
  /** Folder name of the data set, and the name on the command line. */
  readonly name: string;
  /** As the paper prints it. */
  readonly title: string;
  readonly suite: "commonsense" | "arithmetic";
  /** The protocol's limit for the generated answer. */
  readonly maxNewTokens: number;
  /** Which part of the decoded text is the response: behind the last marker, or between the first two (protocol §3.3). */
  readonly response: "last" | "second";
  /** Whether special tokens stay in the text that the answer is read from. */
  readonly specialTokens: boolean;
  /** The answer in a response; "" when there is none. */
  extract(response: string): string;
  isCorrect(parsed: string, record: Pick<InstructionRecord, "answer">): boolean;
  /** null where the task has no options, or a record is not in the task's layout. */
  choices(record: Pick<InstructionRecord, "instruction">): Choices | null;
  cloze(record: Pick<InstructionRecord, "instruction">): Cloze | null;
}

const MARKER = "### Response:";

/** The response part of prompt and answer decoded together. */
export function responseOf(task: Pick<Task, "response">, whole: string): string {
  const parts = whole.split(MARKER);
  return (task.response === "last" ? parts.at(-1)! : (parts[1] ?? "")).trim();
}

/** Test file of a task below a data root (LLM-Adapters' checkout, its `dataset` folder, or a folder that holds either); null: none. */
export function taskFile(root: string, { name }: Pick<Task, "name">): string | null {
  const folders = ["dataset", "", "llm-adapters/dataset", "LLM-Adapters/dataset"];
  return (
    folders.map((folder) => join(root, folder, name, "test.json")).find((path) => existsSync(path)) ?? null
  );
}

/** Records of a task, at most `limit`; null when the data set is not there. @throws InputError for a damaged file */
export function readTaskRecords(
  root: string,
  task: Pick<Task, "name">,
  limit?: number,
): InstructionRecord[] | null {
  const path = taskFile(root, task);
  return path === null ? null : readInstructionRecords(path, { requireAnswer: true }).slice(0, limit);
}
