import { answerLayout, numberedTask } from "./layout.ts";

export const socialIQa = numberedTask({ name: "social_i_qa", title: "SIQA", ...answerLayout });
