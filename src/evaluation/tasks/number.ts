/** What the arithmetic tasks have in common (protocol §3.3): the response's last number, right within 0.001. */
import type { Task } from "../task.ts";

const TOLERANCE = 0.001;

export function arithmeticTask(own: Pick<Task, "name" | "title"> & Partial<Task>): Task {
  return {
    suite: "arithmetic",
    maxNewTokens: 256,
    response: "second",
    specialTokens: true,
    extract(response) {
      const last = response
        .replaceAll(",", "")
        .match(/-?\d+\.?\d*/g)
        ?.at(-1);
      return last === undefined ? "" : String(Number(last));
    },
    isCorrect: (parsed, { answer }) =>
      parsed !== "" && Math.abs(Number(answer) - Number(parsed)) <= TOLERANCE,
    choices: () => null,
    cloze: () => null,
    ...own,
  };
}
