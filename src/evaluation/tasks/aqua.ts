import type { Choices } from "../task.ts";
import { questionCloze } from "./layout.ts";
import { arithmeticTask } from "./number.ts";

const LABELS = ["A", "B", "C", "D", "E"];
const LAYOUT =
  /^([\s\S]*?) ?Answer Choices: \(A\) ([\s\S]*) \(B\) ([\s\S]*) \(C\) ([\s\S]*) \(D\) ([\s\S]*) \(E\) ([\s\S]*)$/;

/** The official rule takes the first capital A to E anywhere, "By algebra" included (protocol §3.3): kept as published. */
export const aqua = arithmeticTask({
  name: "AQuA",
  title: "AQuA",
  extract: (response) => /A|B|C|D|E/.exec(response)?.[0] ?? "",
  isCorrect: (parsed, { answer }) => parsed === answer,
  choices({ instruction }): Choices | null {
    const match = LAYOUT.exec(instruction);
    return match && { labels: LABELS, texts: match.slice(2).map((text) => text.trim()) };
  },
  cloze({ instruction }) {
    const match = LAYOUT.exec(instruction);
    return (
      match &&
      questionCloze(
        match[1]!,
        match.slice(2).map((text) => text.trim()),
      )
    );
  },
});

/** The strict reading beside it (protocol §8): the last "answer is X". */
export function strictLetter(response: string): string {
  return [...response.matchAll(/answer is \(?([A-E])\)?/g)].at(-1)?.[1] ?? "";
}
