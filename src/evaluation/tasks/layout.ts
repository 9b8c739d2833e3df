/** Reading options back out of the instruction layouts of protocol §2.3, and asking them as a cloze (settled 24). */
import type { InstructionRecord } from "../../data/records.ts";
import type { Choices, Cloze, Task } from "../task.ts";

/** `{lead}{question}\n\n{Word}1: {a}{between}{Word}2: {b}…{end}{format}` */
export interface NumberedLayout {
  /** Text in front of the question. */
  readonly lead: string;
  /** "Answer" in the options; its lower case with the number is the label. */
  readonly word: string;
  /** Between two options: " ", or a blank line. */
  readonly between: string;
  /** Between the last option and "Answer format: ". */
  readonly end: string;
}

export interface Parsed extends Choices {
  readonly question: string;
}

const FORMAT = "Answer format: ";

/** Question and options, or null when the instruction is not in this layout. */
export function parseNumbered(instruction: string, layout: NumberedLayout): Parsed | null {
  const { lead, word, between, end } = layout;
  const tail = instruction.lastIndexOf(end + FORMAT);
  if (!instruction.startsWith(lead) || tail < 0) return null;
  const body = instruction.slice(lead.length, tail);
  let at = body.lastIndexOf(`\n\n${word}1: `);
  if (at < 0) return null;
  const question = body.slice(0, at);
  const texts: string[] = [];
  at += "\n\n".length;
  for (let n = 1; ; n++) {
    const start = at + `${word}${n}: `.length;
    const next = body.indexOf(`${between}${word}${n + 1}: `, start);
    texts.push(body.slice(start, next < 0 ? undefined : next).trim());
    if (next < 0) break;
    at = next + between.length;
  }
  const labels = texts.map((_, i) => `${word.toLowerCase()}${i + 1}`);
  return { question, labels, texts };
}

/** lm-eval's form of a question: the options' texts as its continuations. */
export function questionCloze(question: string, texts: readonly string[]): Cloze {
  return {
    contexts: [`Question: ${question.trim()}\nAnswer:`],
    continuations: texts.map((text) => ` ${text}`),
  };
}

/** What the eight commonsense tasks have in common (protocol §2.4). */
export function commonsenseTask(
  own: Pick<Task, "name" | "title" | "choices" | "cloze"> & { readonly answers: RegExp },
): Task {
  const { answers, ...rest } = own;
  return {
    ...rest,
    suite: "commonsense",
    maxNewTokens: 32,
    response: "last",
    specialTokens: false,
    extract: (response) => answers.exec(response)?.[0] ?? "",
    isCorrect: (parsed, { answer }) => parsed === answer,
  };
}

/** A commonsense task whose options are numbered; `cloze` where the plain question is not the best way to ask. */
export function numberedTask(own: {
  readonly name: string;
  readonly title: string;
  readonly layout: NumberedLayout;
  readonly answers: RegExp;
  readonly cloze?: (parsed: Parsed) => Cloze | null;
}): Task {
  const { name, title, layout, answers } = own;
  const parse = (record: Pick<InstructionRecord, "instruction">): Parsed | null =>
    parseNumbered(record.instruction, layout);
  const ask = own.cloze ?? (({ question, texts }: Parsed) => questionCloze(question, texts));
  return commonsenseTask({
    name,
    title,
    answers,
    choices(record) {
      const parsed = parse(record);
      return parsed && { labels: parsed.labels, texts: parsed.texts };
    },
    cloze(record) {
      const parsed = parse(record);
      return parsed && ask(parsed);
    },
  });
}

/** The layout that SIQA, both ARC sets and OBQA share, with the five answers their expression knows. */
export const answerLayout = {
  layout: {
    lead: "Please choose the correct answer to the question: ",
    word: "Answer",
    between: " ",
    end: "\n\n",
  },
  answers: /answer1|answer2|answer3|answer4|answer5/,
} as const;
