/** The eight task files of Table 3 in the layouts of the LLM-Adapters repository (protocol §2.3), about the tiny world. */
import type { InstructionRecord } from "../../src/data/records.ts";
import {
  type Draw,
  drawCheck,
  drawFactQuestion,
  drawFeeling,
  drawMaterial,
  drawObjectQuestion,
  drawPurpose,
  drawStep,
  drawTwoHops,
  type Item,
  type Part,
} from "./items.ts";
import { randomFor, shuffled } from "./random.ts";
import type { World } from "./world.ts";

export interface TinyTask {
  /** Folder name of the test set. */
  readonly name: string;
  readonly draw: Draw;
  /** How an option is called in the text and in the answer. */
  readonly label: "solution" | "answer" | "ending" | "option" | null;
  readonly layout: (question: string, options: string) => string;
  /** Between two options. */
  readonly between: string;
}

const choose = (question: string, options: string): string =>
  `Please choose the correct answer to the question: ${question}\n\n${options}\n\n`;

export const tinyTasks: readonly TinyTask[] = [
  {
    name: "boolq",
    draw: drawCheck,
    label: null,
    layout: (question) =>
      `Please answer the following question with true or false, question: ${question}?\n\n`,
    between: "",
  },
  {
    name: "piqa",
    draw: drawPurpose,
    label: "solution",
    layout: (question, options) =>
      `Please choose the correct solution to the question: ${question}\n\n${options}\n\n`,
    between: "\n\n",
  },
  { name: "social_i_qa", draw: drawFeeling, label: "answer", layout: choose, between: " " },
  {
    name: "hellaswag",
    draw: drawStep,
    label: "ending",
    layout: (question, options) =>
      `Please choose the correct ending to complete the given sentence: ${question}\n\n${options}\n\n`,
    between: " ",
  },
  {
    name: "winogrande",
    draw: drawMaterial,
    label: "option",
    layout: (question, options) =>
      `Please choose the correct answer to fill in the blank to complete the given sentence: ${question}\n\n${options} `,
    between: " ",
  },
  { name: "ARC-Easy", draw: drawFactQuestion, label: "answer", layout: choose, between: " " },
  { name: "ARC-Challenge", draw: drawTwoHops, label: "answer", layout: choose, between: " " },
  { name: "openbookqa", draw: drawObjectQuestion, label: "answer", layout: choose, between: " " },
];

/** An item as a record: all four fields as the published files have them. */
export function recordOf(task: TinyTask, { question, options, right }: Item): InstructionRecord {
  const { label } = task;
  const names = label ? options.map((_, i) => `${label}${i + 1}`) : options;
  const shown = label
    ? options.map((text, i) => `${label[0]!.toUpperCase()}${label.slice(1)}${i + 1}: ${text}`)
    : [];
  const answer = names[right]!;
  return {
    instruction: `${task.layout(question, shown.join(task.between))}Answer format: ${names.join("/")}`,
    input: "",
    output: `the correct answer is ${answer}`,
    answer,
  };
}

/** `count` distinct records of one part. */
export function tinyRecords(
  task: TinyTask,
  world: World,
  part: Part,
  count: number,
  seed: number,
): InstructionRecord[] {
  const random = randomFor(seed, 10 + 2 * tinyTasks.indexOf(task) + (part === "test" ? 1 : 0));
  const records = new Map<string, InstructionRecord>();
  for (let tries = 0; records.size < count && tries < 50 * count; tries++) {
    const record = recordOf(task, task.draw(random, world, part));
    records.set(record.instruction, record);
  }
  return [...records.values()];
}

/** The training mix: every task's records shuffled together, like commonsense_170k.json. */
export function tinyMix(world: World, perTask: number, seed: number): InstructionRecord[] {
  const all = tinyTasks.flatMap((task) => tinyRecords(task, world, "train", perTask, seed));
  return shuffled(randomFor(seed, 3), all);
}
