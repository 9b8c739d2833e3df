import { answerLayout, numberedTask } from "./layout.ts";

export const arcEasy = numberedTask({ name: "ARC-Easy", title: "ARC-e", ...answerLayout });
