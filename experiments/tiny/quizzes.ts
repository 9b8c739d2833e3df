/** What the tiny base model knows, asked in the forms of its own text, by likelihood: plain questions and quizzes of both parts. */
import { scoreContinuations } from "../../src/generation/likelihood.ts";
import type { Llama } from "../../src/model/model.ts";
import type { Tokenizer } from "../../src/text/tokenizer.ts";
import type { Item, Part } from "./items.ts";
import { randomFor } from "./random.ts";
import { tinyTasks } from "./tasks.ts";
import type { World } from "./world.ts";

const ASKED = 60;
const MARKS = ["(a)", "(b)", "(c)", "(d)"];

interface Form {
  readonly name: string;
  readonly ask: (item: Item) => { context: string; continuations: string[] };
}

const forms: readonly Form[] = [
  {
    name: "plain",
    ask: ({ question, options }) => ({
      context: `Question: ${question}\nAnswer:`,
      continuations: options.map((option) => ` ${option}`),
    }),
  },
  {
    name: "quiz",
    ask: ({ question, options }) => ({
      context: `quiz: ${question}${options.map((option, i) => ` ${MARKS[i]} ${option}`).join("")} answer:`,
      continuations: options.map((_, i) => ` ${MARKS[i]}`),
    }),
  },
  {
    name: "find",
    ask: ({ options, right }) => ({
      context: `find:${options.map((option, i) => ` ${MARKS[i]} ${option}`).join("")}. ${options[right]} answer:`,
      continuations: options.map((_, i) => ` ${MARKS[i]}`),
    }),
  },
];

/** Percent right by task, form and part, as lines of text. */
export async function quizAccuracies(model: Llama, tokenizer: Tokenizer, world: World): Promise<string> {
  const lines: string[] = [];
  for (const task of tinyTasks) {
    if (task.label === null) continue;
    const cells: string[] = [];
    for (const { name, ask } of forms) {
      for (const part of ["train", "test"] as const satisfies Part[]) {
        const random = randomFor(7, part === "train" ? 20 : 21);
        const items = Array.from({ length: ASKED }, () => task.draw(random, world, part));
        const scores = await scoreContinuations(
          model,
          items.map((item) => {
            const { context, continuations } = ask(item);
            const ids = tokenizer.encode(context);
            return {
              context: ids,
              continuations: continuations.map((text) => tokenizer.encode(context + text).slice(ids.length)),
            };
          }),
        );
        const right = items.filter(
          (item, i) => scores[i]!.indexOf(Math.max(...scores[i]!)) === item.right,
        ).length;
        cells.push(`${name}/${part} ${((100 * right) / ASKED).toFixed(0).padStart(3)}`);
      }
    }
    lines.push(`${task.name.padEnd(14)} ${cells.join("  ")}`);
  }
  return lines.join("\n");
}
