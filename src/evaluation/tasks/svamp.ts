import { arithmeticTask } from "./number.ts";

export const svamp = arithmeticTask({ name: "SVAMP", title: "SVAMP" });
