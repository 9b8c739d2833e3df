import { arithmeticTask } from "./number.ts";

export const gsm8k = arithmeticTask({ name: "gsm8k", title: "GSM8K" });
