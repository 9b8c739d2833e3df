/** No prompt at all: instruction and input as they are, for data that brings its own wording (FLAN v2, protocol §4.3). */
import type { PromptFormat } from "./prompt.ts";

const render: PromptFormat["train"] = ({ instruction, input }) =>
  input === "" ? instruction : `${instruction}\n${input}`;

export const plain: PromptFormat = {
  name: "plain",
  summary: "the record's text without anything around it",
  train: render,
  test: render,
};
