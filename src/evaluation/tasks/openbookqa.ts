import { answerLayout, numberedTask } from "./layout.ts";

export const openbookqa = numberedTask({ name: "openbookqa", title: "OBQA", ...answerLayout });
