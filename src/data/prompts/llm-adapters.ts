/**
 * The prompt of LLM-Adapters and SBoRA (protocol §2.2), byte for byte. Training and test form differ in white space:
 * blanks after "request.", and blank lines that hold 16 spaces in training but are empty in the test. Published models
 * were trained and tested like that, so the difference is kept.
 */
import type { PromptFormat } from "./prompt.ts";

/** The indentation that the Python source's triple-quoted strings put in front of every line. */
const I = " ".repeat(16);
const TASK =
  "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
const TASK_WITH_INPUT =
  "Below is an instruction that describes a task, paired with an input that provides further context. " +
  "Write a response that appropriately completes the request.";

export const llmAdapters: PromptFormat = {
  name: "llm-adapters",
  summary: "the paper's prompt; training and test form differ in white space, as published",

  train: ({ instruction, input }) =>
    input === ""
      ? `${TASK}  \n\n${I}### Instruction:\n${I}${instruction}\n${I}\n${I}### Response:\n${I}`
      : `${TASK_WITH_INPUT} \n\n${I}### Instruction:\n${I}${instruction}\n${I}\n${I}### Input:\n${I}${input}\n${I}\n` +
        `${I}### Response:\n${I}`,

  test: ({ instruction, input }) =>
    input === ""
      ? `${TASK} \n\n${I}### Instruction:\n${I}${instruction}\n\n${I}### Response:\n${I}`
      : `${TASK_WITH_INPUT}\n\n${I}### Instruction:\n${I}${instruction}\n\n${I}### Input:\n${I}${input}\n\n` +
        `${I}### Response:\n${I}`,
};
