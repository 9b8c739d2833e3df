/** Every evaluation task by name, in the paper's column order. A new task is one file and one entry here. */
import { InputError } from "../../errors.ts";
import type { Task } from "../task.ts";
import { addSub } from "./add-sub.ts";
import { aqua } from "./aqua.ts";
import { arcChallenge } from "./arc-challenge.ts";
import { arcEasy } from "./arc-easy.ts";
import { boolq } from "./boolq.ts";
import { gsm8k } from "./gsm8k.ts";
import { hellaswag } from "./hellaswag.ts";
import { multiArith } from "./multi-arith.ts";
import { openbookqa } from "./openbookqa.ts";
import { piqa } from "./piqa.ts";
import { singleEq } from "./single-eq.ts";
import { socialIQa } from "./social-i-qa.ts";
import { svamp } from "./svamp.ts";
import { winogrande } from "./winogrande.ts";

/** Table 3. */
export const commonsenseTasks: readonly Task[] = [
  boolq,
  piqa,
  socialIQa,
  hellaswag,
  winogrande,
  arcEasy,
  arcChallenge,
  openbookqa,
];

/** Table 4. */
export const arithmeticTasks: readonly Task[] = [multiArith, gsm8k, addSub, aqua, singleEq, svamp];

export const tasks: readonly Task[] = [...commonsenseTasks, ...arithmeticTasks];

/** @throws InputError with the list of names. */
export function taskNamed(name: string): Task {
  const task = tasks.find((t) => t.name === name);
  if (task) return task;
  throw new InputError(
    `unknown task "${name}"; expected commonsense, arithmetic or names out of ${tasks.map((t) => t.name).join(", ")}`,
  );
}

/** Tasks of a comma-separated list of names; `commonsense` and `arithmetic` stand for their whole suite. */
export function tasksNamed(list: string): Task[] {
  const names = list
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  if (names.length === 0)
    throw new InputError(`no task is named in "${list}"; expected names with commas between them`);
  const found = names.flatMap((name) =>
    name === "commonsense" || name === "arithmetic"
      ? tasks.filter((t) => t.suite === name)
      : [taskNamed(name)],
  );
  return [...new Set(found)];
}
