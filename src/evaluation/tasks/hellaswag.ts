import { numberedTask } from "./layout.ts";

export const hellaswag = numberedTask({
  name: "hellaswag",
  title: "HellaSwag",
  layout: {
    lead: "Please choose the correct ending to complete the given sentence: ",
    word: "Ending",
    between: " ",
    end: "\n\n",
  },
  answers: /ending1|ending2|ending3|ending4/,
});
