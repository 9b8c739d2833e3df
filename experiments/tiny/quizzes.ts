/** What the tiny base model knows, asked in the forms of its own text, by likelihood. */
import { scoreContinuations } from "../../src/generation/likelihood.ts";
import type { Llama } from "../../src/model/model.ts";
import type { Tokenizer } from "../../src/text/tokenizer.ts";
import type { Item, Part } from "./items.ts";
import { randomFor } from "./random.ts";
import { type TinyTask, tinyTasks } from "./tasks.ts";
import type { World } from "./world.ts";

const ASKED = 60;

/** Contexts that end where the answer begins; the options in words continue them. */
const forms = {
  plain: ({ question }: Item): string => `Question: ${question}\nAnswer:`,
  choice: ({ question, options }: Item): string => `${question} ${options.join(", ")}? so`,
} as const;
type Form = keyof typeof forms;

/** Percent of a task's questions of one part whose right option is the likeliest. */
export async function quizAccuracy(
  model: Llama,
  tokenizer: Tokenizer,
  world: World,
  task: TinyTask,
  form: Form,
  part: Part,
): Promise<number> {
  const random = randomFor(7, part === "train" ? 20 : 21);
  const items = Array.from({ length: ASKED }, () => task.draw(random, world, part));
  const scores = await scoreContinuations(
    model,
    items.map((item) => {
      const text = forms[form](item);
      const context = tokenizer.encode(text);
      const continuations = item.options.map((option) =>
        tokenizer.encode(`${text} ${option}`).slice(context.length),
      );
      return { context, continuations };
    }),
  );
  const right = items.filter((item, i) => scores[i]!.indexOf(Math.max(...scores[i]!)) === item.right);
  return (100 * right.length) / ASKED;
}

/** The same of every task with options, as lines of text. */
export async function quizAccuracies(model: Llama, tokenizer: Tokenizer, world: World): Promise<string> {
  const lines: string[] = [];
  for (const task of tinyTasks.filter(({ label }) => label !== null)) {
    let line = task.name.padEnd(14);
    for (const form of Object.keys(forms) as Form[]) {
      for (const part of ["train", "test"] as const) {
        const percent = await quizAccuracy(model, tokenizer, world, task, form, part);
        line += `  ${form}/${part} ${percent.toFixed(0).padStart(3)}`;
      }
    }
    lines.push(line);
  }
  return lines.join("\n");
}
