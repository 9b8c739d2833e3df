import { numberedTask } from "./layout.ts";

export const piqa = numberedTask({
  name: "piqa",
  title: "PIQA",
  layout: {
    lead: "Please choose the correct solution to the question: ",
    word: "Solution",
    between: "\n\n",
    end: "\n\n",
  },
  answers: /solution1|solution2/,
});
