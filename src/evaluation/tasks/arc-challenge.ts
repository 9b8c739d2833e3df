import { answerLayout, numberedTask } from "./layout.ts";

export const arcChallenge = numberedTask({ name: "ARC-Challenge", title: "ARC-c", ...answerLayout });
