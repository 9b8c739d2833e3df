/** Alpaca's prompt as the 4-bit experiments use it (protocol §4.3), with their trailing space; one form for both. */
import type { PromptFormat } from "./prompt.ts";

const TASK =
  "Below is an instruction that describes a task. Write a response that appropriately completes the request.";
const TASK_WITH_INPUT =
  "Below is an instruction that describes a task, paired with an input that provides further context. " +
  "Write a response that appropriately completes the request.";

const render: PromptFormat["train"] = ({ instruction, input }) =>
  input === ""
    ? `${TASK}\n\n### Instruction:\n${instruction}\n\n### Response: `
    : `${TASK_WITH_INPUT}\n\n### Instruction:\n${instruction}\n\n### Input:\n${input}\n\n### Response: `;

export const alpaca: PromptFormat = {
  name: "alpaca",
  summary: "Stanford Alpaca's prompt; the same text for training and test",
  train: render,
  test: render,
};
