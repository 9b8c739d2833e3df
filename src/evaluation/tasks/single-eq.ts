import { arithmeticTask } from "./number.ts";

export const singleEq = arithmeticTask({ name: "SingleEq", title: "SingleEq" });
