import { numberedTask } from "./layout.ts";

/**
 * As a cloze each option is put in at the blank, and the rest of the sentence is what gets scored, as lm-eval does: it is
 * the same text for both, so neither an option's length nor its frequency counts.
 */
export const winogrande = numberedTask({
  name: "winogrande",
  title: "WinoGrande",
  layout: {
    lead: "Please choose the correct answer to fill in the blank to complete the given sentence: ",
    word: "Option",
    between: " ",
    end: " ",
  },
  answers: /option1|option2/,
  cloze({ question, texts }) {
    const blank = question.indexOf("_");
    if (blank < 0) return null;
    const rest = question.slice(blank + 1).trim();
    if (rest === "") return null;
    return {
      contexts: texts.map((text) => question.slice(0, blank) + text),
      continuations: texts.map(() => ` ${rest}`),
    };
  },
});
