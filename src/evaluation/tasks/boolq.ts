import { commonsenseTask, questionCloze } from "./layout.ts";

const LEAD = "Please answer the following question with true or false, question: ";
const END = "\n\nAnswer format: true/false";
const LABELS = ["true", "false"];

export const boolq = commonsenseTask({
  name: "boolq",
  title: "BoolQ",
  answers: /true|false/,
  choices: () => ({ labels: LABELS, texts: LABELS }),
  cloze({ instruction }) {
    if (!instruction.startsWith(LEAD) || !instruction.endsWith(END)) return null;
    return questionCloze(instruction.slice(LEAD.length, -END.length), LABELS);
  },
});
